//! As much of PostgreSQL's protocol as it takes to tell one request from the next.
//!
//! Source: the chapter "Frontend/Backend Protocol" of PostgreSQL's manual, version 3.0. A message is a type, a length
//! that counts itself, and a body; the very first one of a client has no type.

use std::collections::HashMap;
use std::mem;

/// What ends a request: `Sync`, `Query`, `Terminate`, and the messages of a log-in.
const ENDS_REQUEST: [u8; 4] = *b"SQXp";

/// What ends an answer: `ReadyForQuery`.
const ENDS_ANSWER: u8 = b'Z';

/// The bytes of one direction, cut into messages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) buffer: Vec<u8>,
    has_types: bool,
}

impl Frames {
    /// Those of a client, which begin with a message without a type.
    pub(super) fn of_client() -> Self {
        Self::default()
    }

    /// Those of a server.
    pub(super) fn of_server() -> Self {
        Self { has_types: true, ..Self::default() }
    }

    /// Takes the next whole message out of the buffer.
    pub(super) fn next(&mut self) -> Option<Message> {
        let head = usize::from(self.has_types);
        let length = self.buffer.get(head..head + 4)?.try_into().ok()?;
        let end = head + u32::from_be_bytes(length) as usize;
        if self.buffer.len() < end {
            return None;
        }
        let rest = self.buffer.split_off(end);
        let bytes = mem::replace(&mut self.buffer, rest);
        let kind = if self.has_types { bytes[0] } else { ENDS_REQUEST[0] };
        self.has_types = true;
        Some(Message { kind, bytes, body: head + 4 })
    }
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    pub(super) bytes: Vec<u8>,
    body: usize,
}

impl Message {
    /// Tells whether the server answers when it has this.
    pub(super) fn ends_request(&self) -> bool {
        ENDS_REQUEST.contains(&self.kind)
    }

    /// Tells whether the server waits for the next request after this.
    pub(super) fn ends_answer(&self) -> bool {
        self.kind == ENDS_ANSWER
    }

    /// Tells whether the server says with it that the statement failed.
    pub(super) fn is_error(&self) -> bool {
        self.kind == b'E'
    }

    /// Returns the texts in the body that end with a zero, as far as they are texts.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes[self.body..].split(|byte| *byte == 0)
    }
}

/// The prepared statements of a session, and which of them is executed.
#[derive(Debug, Default)]
pub(super) struct Statements {
    texts: HashMap<Vec<u8>, String>,
    bound: Option<String>,
}

impl Statements {
    /// Takes note of a client's message; returns the text of the statement that it executes.
    pub(super) fn on_message(&mut self, message: &Message) -> Option<String> {
        let mut texts = message.texts();
        match message.kind {
            // A name and a text.
            b'P' => {
                let (name, text) = (texts.next()?.to_vec(), texts.next()?);
                self.texts.insert(name, String::from_utf8_lossy(text).into_owned());
                None
            }
            // A portal, and the name of the statement.
            b'B' => {
                self.bound = self.texts.get(texts.nth(1)?).cloned();
                None
            }
            b'E' => self.bound.take(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut frames = Frames::of_client();
        frames.buffer = [&8_u32.to_be_bytes()[..], b"\0\x03\0\0", &message(b'S', b""), b"P"].concat();
        let first = frames.next().expect("the start");
        assert!(first.ends_request() && first.bytes.len() == 8);
        assert!(frames.next().expect("a sync").ends_request());
        assert!(frames.next().is_none(), "half a message is none");
    }

    #[test]
    fn an_execution_is_known_by_the_text_that_was_prepared() {
        let mut frames = Frames::of_server();
        frames.buffer = [
            message(b'P', b"one\0SELECT 1\0\0\0"),
            message(b'B', b"\0one\0\0\0\0\0\0\0"),
            message(b'E', b"\0\0\0\0\0"),
        ]
        .concat();
        let mut statements = Statements::default();
        let executed: Vec<_> =
            std::iter::from_fn(|| frames.next()).map(|one| statements.on_message(&one)).collect();
        assert_eq!(executed, [None, None, Some("SELECT 1".to_owned())]);
    }
}
