//! What two nodes tell each other before the first call: who they are, and what they know.
//!
//! It is JSON, because it is the one frame that every release must read of every other: unknown fields are passed over,
//! and a field that is missing has a default.

use std::collections::{BTreeMap, BTreeSet};

use orchestrix_core::{Incarnation, Name};
use serde::{Deserialize, Serialize};

use crate::error::NotAttempted;

/// The newest version of frames that this release writes and reads.
pub const VERSION: u16 = 1;

/// The oldest version of frames that this release writes and reads.
pub const VERSION_OLDEST: u16 = 1;

/// What a node says about itself when a connection begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of frames that it understands.
    pub version: u16,
    /// The oldest version of frames that it understands.
    pub version_oldest: u16,
    /// The cluster that it belongs to.
    pub cluster: Box<str>,
    /// Its run.
    pub incarnation: Incarnation,
    /// The run that it wants to talk to; the one that accepts leaves it out.
    #[serde(default)]
    pub wants: Option<Incarnation>,
    /// What people call it.
    #[serde(default)]
    pub node: Box<str>,
    /// The version of its application.
    #[serde(default)]
    pub application_version: Box<str>,
    /// How many calls of this connection it takes before it has answered one of them.
    pub calls_max: u32,
    /// The aggregate types that it knows.
    #[serde(default)]
    pub registry: Registry,
}

/// The aggregate types and commands that a node can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Registry {
    types: BTreeMap<Name, TypeEntry>,
}

/// One type of a [`Registry`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeEntry {
    /// The fingerprint of its state: states travel only between nodes that agree about it.
    #[serde(default)]
    pub state: u64,
    /// The commands that it takes from other nodes.
    #[serde(default)]
    pub commands: BTreeSet<Name>,
}

impl Registry {
    /// Adds a type; one of the same name is replaced.
    pub fn add(&mut self, aggregate_type: impl Into<Name>, entry: TypeEntry) {
        self.types.insert(aggregate_type.into(), entry);
    }

    /// Returns what is known about a type.
    pub fn get(&self, aggregate_type: &str) -> Option<&TypeEntry> {
        self.types.get(aggregate_type)
    }

    /// Checks that a node can serve a command, or anything at all, of a type.
    ///
    /// # Errors
    /// [`NotAttempted::NotRegistered`] or [`NotAttempted::UnknownCommand`].
    pub fn check(&self, node: &str, aggregate_type: &str, command: Option<&str>) -> Result<(), NotAttempted> {
        let own = |name: &str| Name::Owned(name.to_owned());
        let Some(known) = self.get(aggregate_type) else {
            return Err(NotAttempted::NotRegistered { aggregate_type: own(aggregate_type) });
        };
        match command {
            Some(command) if !known.commands.contains(command) => Err(NotAttempted::UnknownCommand {
                aggregate_type: own(aggregate_type),
                command: own(command),
                node: node.into(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Why two nodes do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// The two belong to different clusters. Handling: correct the address, or the database, of one of them.
    #[error("it belongs to cluster {theirs:?}, not to {ours:?}")]
    OtherCluster {
        /// The cluster of the node that refuses.
        ours: Box<str>,
        /// The cluster of the node that is refused.
        theirs: Box<str>,
    },
    /// Another run is at that address, usually since the node was started again. Handling: read the members again.
    #[error("the run {wanted} is not here; {here} is")]
    OtherIncarnation {
        /// The run that was asked for.
        wanted: Incarnation,
        /// The run that answered.
        here: Incarnation,
    },
    /// The two releases have no version of frames in common. Handling: upgrade by way of a release in between.
    #[error("it speaks frames of versions {theirs_oldest} to {theirs}; understood are {oldest} to {newest}")]
    OtherVersion {
        /// The oldest version of the node that refuses.
        oldest: u16,
        /// The newest version of the node that refuses.
        newest: u16,
        /// The oldest version of the node that is refused.
        theirs_oldest: u16,
        /// The newest version of the node that is refused.
        theirs: u16,
    },
    /// The node is stopping. Handling: the members say soon that it has left.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl Hello {
    /// Checks what the other node says against what this node is.
    ///
    /// # Errors
    /// [`Unwelcome`], when they must not talk to each other.
    pub fn check(&self, theirs: &Self) -> Result<(), Unwelcome> {
        if self.version < theirs.version_oldest || theirs.version < self.version_oldest {
            return Err(Unwelcome::OtherVersion {
                oldest: self.version_oldest,
                newest: self.version,
                theirs_oldest: theirs.version_oldest,
                theirs: theirs.version,
            });
        }
        if self.cluster != theirs.cluster {
            return Err(Unwelcome::OtherCluster {
                ours: self.cluster.clone(),
                theirs: theirs.cluster.clone(),
            });
        }
        match theirs.wants {
            Some(wanted) if wanted != self.incarnation => {
                Err(Unwelcome::OtherIncarnation { wanted, here: self.incarnation })
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: 3,
            version_oldest: 2,
            cluster: "bank".into(),
            incarnation: Incarnation::fresh(),
            wants: None,
            node: "ada".into(),
            application_version: "1.2".into(),
            calls_max: 8,
            registry: Registry::default(),
        }
    }

    #[test]
    fn nodes_of_one_cluster_with_a_version_in_common_are_welcome() {
        let (here, there) = (hello(), hello());
        assert_eq!(here.check(&there), Ok(()));
        assert_eq!(here.check(&Hello { version: 2, version_oldest: 1, ..there.clone() }), Ok(()));
        assert_eq!(here.check(&Hello { version: 9, version_oldest: 3, ..there.clone() }), Ok(()));
        assert_eq!(here.check(&Hello { wants: Some(here.incarnation), ..there }), Ok(()));
    }

    #[test]
    fn another_cluster_another_run_and_another_version_are_named() {
        let (here, there) = (hello(), hello());
        let refused = |theirs: Hello| here.check(&theirs).expect_err("is refused").to_string();
        let text = refused(Hello { cluster: "shop".into(), ..there.clone() });
        assert_eq!(text, "it belongs to cluster \"shop\", not to \"bank\"");
        let text = refused(Hello { wants: Some(there.incarnation), ..there.clone() });
        assert_eq!(text, format!("the run {} is not here; {} is", there.incarnation, here.incarnation));
        let text = refused(Hello { version: 9, version_oldest: 4, ..there.clone() });
        assert_eq!(text, "it speaks frames of versions 4 to 9; understood are 2 to 3");
        assert!(here.check(&Hello { version: 1, version_oldest: 1, ..there }).is_err());
    }

    #[test]
    fn a_registry_names_what_it_lacks() {
        let mut registry = Registry::default();
        let commands = ["account.open".into()].into();
        registry.add("account", TypeEntry { state: 7, commands });
        assert_eq!(registry.check("ada", "account", Some("account.open")), Ok(()));
        assert_eq!(registry.check("ada", "account", None), Ok(()));
        let error = registry.check("ada", "account", Some("account.close")).expect_err("not known");
        assert_eq!(error.to_string(), "node ada does not know the command \"account.close\" of \"account\"");
        let error = registry.check("ada", "order", None).expect_err("not known");
        assert_eq!(error.kind(), "not_registered");
    }

    #[test]
    fn a_newer_hello_with_more_fields_and_an_older_one_with_fewer_are_understood() {
        let newer = r#"{"version":9,"version_oldest":1,"cluster":"bank","calls_max":4,"colour":"blue",
            "incarnation":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "registry":{"account":{"state":1,"commands":["account.open"],"speed":3}}}"#;
        let read: Hello = serde_json::from_str(newer).expect("it is understood");
        assert_eq!((read.version, read.wants, &*read.node), (9, None, ""));
        assert!(read.registry.check("x", "account", Some("account.open")).is_ok());
    }
}
