//! Where values come from: the environment, then `.env`, then files that `NAME_FILE` names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::variable::VARIABLES;

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the environment of the process.
    Environment,
    /// In the file `.env` of the working directory.
    EnvFile,
    /// In the file that `NAME_FILE` names.
    File,
}

/// The values of known variables. An empty value counts as not set.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Source {
    /// Reads the process's environment and, where that says nothing, the file `.env`, if there is one.
    pub(super) fn process() -> Result<Self, ConfigError> {
        let file = read_env_file(Path::new(".env"))?;
        Self::collect(|name| {
            let own = std::env::var_os(name).map(|value| (value, Origin::Environment));
            own.or_else(|| file.get(name).map(|value| (value.into(), Origin::EnvFile)))
        })
    }

    /// Takes values from a list, as if they stood in the environment.
    pub(super) fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, ConfigError> {
        Self::collect(|name| {
            let value = pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            value.map(|value| (value.into(), Origin::Environment))
        })
    }

    /// Returns the value of a variable and where it was found.
    pub(super) fn get(&self, name: &str) -> Option<(&str, Origin)> {
        self.values.get(name).map(|(value, origin)| (value.as_str(), *origin))
    }

    fn collect(look_up: impl Fn(&str) -> Option<(OsString, Origin)>) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for name in VARIABLES.iter().map(|variable| variable.name) {
            if let Some(found) = value_of(name, &look_up)? {
                values.insert(name, found);
            }
        }
        Ok(Self { values })
    }
}

fn value_of(
    name: &'static str,
    look_up: &impl Fn(&str) -> Option<(OsString, Origin)>,
) -> Result<Option<(String, Origin)>, ConfigError> {
    let set = |name: &str| look_up(name).filter(|(value, _)| !value.is_empty());
    match (set(name), set(&format!("{name}_FILE"))) {
        (Some(_), Some(_)) => Err(ConfigError::SetTwice { name }),
        (Some((value, origin)), None) => {
            let value = value.into_string().map_err(|_| ConfigError::NotText { name })?;
            Ok(Some((value, origin)))
        }
        (None, Some((path, _))) => read_value_file(name, PathBuf::from(path)).map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads a secret from its file, without the line end that editors leave.
fn read_value_file(name: &'static str, path: PathBuf) -> Result<(String, Origin), ConfigError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((text.trim_end_matches(['\r', '\n']).to_owned(), Origin::File)),
        Err(source) => Err(ConfigError::File { name, path, source }),
    }
}

/// Reads `.env` into a map. The environment of the process is left as it is.
fn read_env_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let wrong =
        |error: dotenvy::Error| ConfigError::EnvFile { path: path.to_owned(), reason: error.to_string() };
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    dotenvy::from_path_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"sqlite:///srv/bank.db\n").expect("writes");
        let path = file.path().to_str().expect("UTF-8");
        let source = Source::from_pairs(&[("DATABASE_URL_FILE", path)]).expect("reads");
        assert_eq!(source.get("DATABASE_URL"), Some(("sqlite:///srv/bank.db", Origin::File)));
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        let error = Source::from_pairs(&[("DATABASE_URL_FILE", "/no/such/file")]).expect_err("missing");
        assert!(error.to_string().starts_with("DATABASE_URL_FILE names /no/such/file"), "{error}");
    }

    #[test]
    fn a_value_and_its_file_do_not_go_together() {
        let pairs = [("DATABASE_URL", "sqlite://a"), ("DATABASE_URL_FILE", "b")];
        let error = Source::from_pairs(&pairs).expect_err("twice");
        assert_eq!(error.to_string(), "DATABASE_URL and DATABASE_URL_FILE are both set; remove one of them");
    }

    #[test]
    fn an_empty_value_is_not_set() {
        let source = Source::from_pairs(&[("NATS_URL", "")]).expect("reads");
        assert_eq!(source.get("NATS_URL"), None);
    }

    #[test]
    fn an_env_file_is_read_and_a_broken_one_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(".env");
        assert_eq!(read_env_file(&path).expect("no file is fine"), BTreeMap::new());
        std::fs::write(&path, "# a comment\nLOG_LEVEL=debug\n").expect("writes");
        assert_eq!(read_env_file(&path).expect("reads")["LOG_LEVEL"], "debug");
        std::fs::write(&path, "this is no assignment\n").expect("writes");
        assert!(read_env_file(&path).expect_err("broken").to_string().contains("this is no assignment"));
    }
}
