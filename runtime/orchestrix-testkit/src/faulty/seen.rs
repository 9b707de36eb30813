//! What the wrapped store itself answered to appends: how a test of real faults knows that they hit something.

use orchestrix_core::store::CommitOutcome;

/// How the commits that reached the wrapped store were answered by it, and how many appends are under way in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendCounts {
    /// Appends that have no answer yet.
    pub under_way: u64,
    /// Appends of which at least one commit was answered with `Unknown`.
    pub doubtful: u64,
    /// Commits answered with `Committed`.
    pub committed: u64,
    /// Commits answered with `Conflict`.
    pub conflicts: u64,
    /// Commits answered with `Fenced`.
    pub fenced: u64,
    /// Commits answered with `Unavailable`.
    pub unavailable: u64,
    /// Commits answered with `Unknown`.
    pub unknown: u64,
}

impl AppendCounts {
    pub(super) fn count(&mut self, outcomes: &[CommitOutcome]) {
        let unknown = self.unknown;
        for outcome in outcomes {
            let counter = match outcome {
                CommitOutcome::Committed { .. } => &mut self.committed,
                CommitOutcome::Conflict { .. } => &mut self.conflicts,
                CommitOutcome::Fenced => &mut self.fenced,
                CommitOutcome::Unavailable { .. } => &mut self.unavailable,
                CommitOutcome::Unknown { .. } => &mut self.unknown,
            };
            *counter += 1;
        }
        self.doubtful += u64::from(self.unknown > unknown);
    }
}
