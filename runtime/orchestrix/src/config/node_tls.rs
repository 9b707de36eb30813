//! What protects the traffic between nodes.

use std::path::PathBuf;

use super::error::ConfigError;
use super::read::Reader;
use crate::cluster::TlsFiles;

/// What protects the traffic between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTls {
    /// The certificate of this node, its key, and whom it believes; `None` for plain text.
    pub files: Option<TlsFiles>,
    /// Whether plain text may leave this machine.
    pub plaintext_allowed: bool,
}

const NAMES: [&str; 3] = ["NODE_TLS_CERT", "NODE_TLS_KEY", "NODE_TLS_CA"];

pub(super) fn node_tls(read: &mut Reader<'_>) -> Result<NodeTls, ConfigError> {
    let mut paths = Vec::new();
    for name in NAMES {
        paths.push(path(read, name)?);
    }
    let plaintext_allowed = read.flag("NODE_PLAINTEXT_ALLOWED", false)?;
    let files = match <[Option<PathBuf>; 3]>::try_from(paths).expect("there is one for each name") {
        [Some(cert), Some(key), Some(ca)] => Some(TlsFiles { cert, key, ca }),
        [None, None, None] => None,
        some => return Err(incomplete(&some)),
    };
    match files {
        Some(_) if plaintext_allowed => Err(ConfigError::Contradiction {
            problem: "NODE_PLAINTEXT_ALLOWED is true and certificates for nodes are set".to_owned(),
            remedy: "remove one of them",
        }),
        files => Ok(NodeTls { files, plaintext_allowed }),
    }
}

fn path(read: &mut Reader<'_>, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    let text = read.text(name).map(str::trim).filter(|text| !text.is_empty());
    // Who gives the file itself by `NAME_FILE` has given its content here, and content must not be shown.
    if text.is_some_and(|text| text.contains("-----BEGIN")) {
        return Err(ConfigError::Contradiction {
            problem: format!("{name} holds a certificate or a key and not the name of a file"),
            remedy: "set it to the name of the file; it is read again when it changes",
        });
    }
    Ok(text.map(PathBuf::from))
}

fn incomplete(paths: &[Option<PathBuf>]) -> ConfigError {
    let missing: Vec<&str> =
        NAMES.iter().zip(paths).filter(|(_, path)| path.is_none()).map(|(name, _)| *name).collect();
    ConfigError::Contradiction {
        problem: format!(
            "a node's certificate, key and authority belong together, and {} is not set",
            missing.join(" and ")
        ),
        remedy: "set all three, or none of them",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<NodeTls, String> {
        Config::from_pairs(pairs).map(|config| config.node_tls).map_err(|error| error.to_string())
    }

    #[test]
    fn all_three_files_or_none_are_given() {
        assert_eq!(read(&[]), Ok(NodeTls::default()));
        let all = [("NODE_TLS_CERT", "a.pem"), ("NODE_TLS_KEY", "b.pem"), ("NODE_TLS_CA", "c.pem")];
        let files = TlsFiles { cert: "a.pem".into(), key: "b.pem".into(), ca: "c.pem".into() };
        assert_eq!(read(&all), Ok(NodeTls { files: Some(files), plaintext_allowed: false }));
        let text = read(&all[..2]).expect_err("one is missing");
        assert!(text.contains("NODE_TLS_CA is not set; set all three"), "{text}");
    }

    #[test]
    fn plain_text_is_allowed_by_name_and_not_beside_certificates() {
        let allowed = ("NODE_PLAINTEXT_ALLOWED", "true");
        assert!(read(&[allowed]).expect("it may be").plaintext_allowed);
        let both = [allowed, ("NODE_TLS_CERT", "a.pem"), ("NODE_TLS_KEY", "b.pem"), ("NODE_TLS_CA", "c.pem")];
        assert!(read(&both).expect_err("which one?").contains("remove one of them"));
    }

    #[test]
    fn a_key_in_place_of_its_file_is_refused_and_not_shown() {
        let text = read(&[("NODE_TLS_KEY", "-----BEGIN PRIVATE KEY-----\nhunter2")]).expect_err("no file");
        assert!(text.contains("NODE_TLS_KEY holds") && !text.contains("hunter2"), "{text}");
    }
}
