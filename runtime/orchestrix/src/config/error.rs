//! Why a configuration is refused. Every message names the variable, what is allowed and what to do.

use std::path::PathBuf;

/// The environment does not describe a service that can run. Nothing was started. The process ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is not among those that are allowed. Handling: correct it.
    #[error("{name} is {value:?}; allowed is {allowed}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value; masked when it is a secret.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// The variable asks for something that this release cannot do. Handling: remove it, or run a release that can.
    #[error("{name} is {value:?}, and this release cannot do that: {remedy}")]
    NotInThisRelease {
        /// The variable.
        name: &'static str,
        /// Its value; masked when it is a secret.
        value: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Two values do not go together. Handling: change one of them.
    #[error("{problem}; {remedy}")]
    Contradiction {
        /// The variables and their values.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A variable and its `_FILE` form are both set. Handling: remove one of them.
    #[error("{name} and {name}_FILE are both set; remove one of them")]
    SetTwice {
        /// The variable.
        name: &'static str,
    },
    /// The file that `NAME_FILE` names cannot be read. Handling: correct the path or the file's permissions.
    #[error("{name}_FILE names {}, which cannot be read: {source}; correct the path or its permissions", path.display())]
    File {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A value is not UTF-8. Handling: correct it.
    #[error("{name} is not UTF-8 text; correct it")]
    NotText {
        /// The variable.
        name: &'static str,
    },
    /// The file `.env` cannot be read. Handling: correct the line, or remove the file.
    #[error("the file {} cannot be used: {reason}; correct it or remove it", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
