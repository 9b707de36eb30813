//! What can be broken on purpose, to see whether anybody notices.

/// One guard taken away from the models beside the decision files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// An append compares neither epoch nor run.
    NoFence,
    /// An append and a release compare the epoch only.
    NoIncarnation,
    /// A node believes in its lease to the very end, whatever its clock does.
    NoMargin,
    /// Reads and repeated replies leave before what they saw is durable.
    NoGate,
    /// A claim or a release does not wait for appends in flight, as if they held `FOR KEY SHARE`.
    KeyShare,
    /// A command is decided again whether its id is known or not.
    NoDedup,
    /// Reads and repeated replies leave without a look at lease and ownership.
    NoCheck,
}

impl Mutant {
    pub(super) const ALL: [Self; 7] = [
        Self::NoFence,
        Self::NoIncarnation,
        Self::NoMargin,
        Self::NoGate,
        Self::KeyShare,
        Self::NoDedup,
        Self::NoCheck,
    ];
}
