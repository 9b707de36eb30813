//! Callers: they send commands with unique ids and strong reads to any node, and retry with the same id at another one.

use orchestrix_core::ShardId;

use super::judge::{Call, Heard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Look,
}

/// A command or a strong read on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) shard: ShardId,
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) hops: u8,
}

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Done { version: usize, is_repeat: bool },
    Saw(usize),
    NotAttempted,
    Unknown,
}

/// What a caller does at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) shard: ShardId,
    pub(super) kind: Kind,
    pub(super) id: u64,
    pub(super) invoked: u64,
    /// It was answered before, and is only repeated.
    pub(super) is_repeat: bool,
}

/// What a word means to a caller.
pub(super) enum Told {
    /// It is about an attempt that was given up.
    Nothing,
    /// It has to be tried again.
    Again,
    Call(Call),
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) operation: Option<Operation>,
    pub(super) attempt: u64,
    /// The last command that was done; it may be sent once more.
    pub(super) done: Option<Operation>,
}

impl Client {
    /// Takes in a word about an attempt.
    pub(super) fn on_word(&mut self, attempt: u64, word: Word, step: u64) -> Told {
        let Some(operation) = self.operation.filter(|_| attempt == self.attempt) else {
            return Told::Nothing;
        };
        let heard = match (word, operation.kind) {
            (Word::Done { version, .. }, Kind::Write) => Heard::Done { id: operation.id, version },
            (Word::Saw(version), Kind::Look) => Heard::Saw { version },
            _ => return Told::Again,
        };
        self.operation = None;
        if operation.kind == Kind::Write {
            self.done = Some(operation);
        }
        // What a repeat says is compared with the log; it took effect when it was first sent.
        let invoked = if operation.is_repeat { 0 } else { operation.invoked };
        Told::Call(Call { shard: operation.shard, invoked, returned: step, heard })
    }
}
