//! A client's connection to one node: many asks under way at once, written in batches, answered in any order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::CommandId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::frame::{Answer, Ask, Frames, IN_FLIGHT_MAX, Outbox, READ_BYTES, Request, Told};
use crate::driver::Ack;

/// After this long without a word on open asks a node is passed over for new ones, as a load balancer would.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// Why an ask has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was not sent: the connection had ended, was about to, or was full.
    NotSent,
    /// The connection ended under it.
    CutOff,
}

/// A connection.
pub(super) struct Line {
    outbox: Outbox,
    asked: Mutex<Asked>,
    tasks: Mutex<JoinSet<()>>,
}

/// What waits for an answer.
struct Asked {
    /// Whether the connection is there and the node has not said that it leaves.
    open: bool,
    ticket: u64,
    waiting: HashMap<u64, Waiting>,
    /// The last word, or the first ask after everything was answered.
    heard: Instant,
    /// Commands that were answered as done when their caller had already turned to another node. These answers are
    /// promises like any other, so the check gets them.
    late: Vec<Ack>,
}

struct Waiting {
    caller: oneshot::Sender<Answer>,
    ask: Ask,
}

impl Line {
    /// Connects to a node.
    ///
    /// # Errors
    /// When it does not listen.
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Arc<Self>> {
        let socket = TcpStream::connect(address).await.context("a node does not listen")?;
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        let asked =
            Asked { open: true, ticket: 0, waiting: HashMap::new(), heard: Instant::now(), late: Vec::new() };
        let line =
            Arc::new(Self { outbox: Outbox::default(), asked: Mutex::new(asked), tasks: Mutex::default() });
        let mut tasks = line.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = Arc::clone(&line);
        tasks.spawn(async move { writer.outbox.write_to(write).await });
        tasks.spawn(Arc::clone(&line).receive(read));
        drop(tasks);
        Ok(line)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Cancel safety
    /// The ask goes on; its answer is kept for the check.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, NoAnswer> {
        let (caller, answer) = oneshot::channel();
        let ticket = self.asked().enter(caller, ask).ok_or(NoAnswer::NotSent)?;
        self.outbox.put(&Request { ticket, ask });
        answer.await.map_err(|_| NoAnswer::CutOff)
    }

    /// Tells whether a load balancer would send something here.
    pub(super) fn is_ready(&self) -> bool {
        let asked = self.asked();
        let silent = !asked.waiting.is_empty() && asked.heard.elapsed() > SILENCE_MAX;
        asked.open && !silent
    }

    /// Returns how many asks wait for an answer.
    pub(super) fn under_way(&self) -> usize {
        self.asked().waiting.len()
    }

    /// Ends the connection and returns the promises that came too late for their callers.
    pub(super) fn close(&self) -> Vec<Ack> {
        self.end();
        std::mem::take(&mut self.asked().late)
    }

    async fn receive(self: Arc<Self>, mut socket: OwnedReadHalf) {
        let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_BYTES]);
        while let Ok(read @ 1..) = socket.read(&mut buffer).await {
            frames.fill(&buffer[..read]);
            match self.hear(&mut frames) {
                Ok(true) => {}
                Ok(false) | Err(_) => break,
            }
        }
        self.end();
    }

    /// Takes what was read; `false` when there is nothing more to come, since the node leaves and all is answered.
    fn hear(&self, frames: &mut Frames) -> anyhow::Result<bool> {
        let mut asked = self.asked();
        asked.heard = Instant::now();
        while let Some(told) = frames.next::<Told>()? {
            match told {
                Told::Leaving => asked.open = false,
                Told::Answer(ticket, answer) => asked.answer(ticket, answer),
            }
        }
        Ok(asked.open || !asked.waiting.is_empty())
    }

    /// Ends the connection and lets go of whoever waits: their ends of the channel tell them.
    fn end(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let mut asked = self.asked();
        asked.open = false;
        asked.waiting.clear();
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Gives out a ticket; `None` when the connection has ended or is full.
    fn enter(&mut self, caller: oneshot::Sender<Answer>, ask: Ask) -> Option<u64> {
        if !self.open || self.waiting.len() >= IN_FLIGHT_MAX {
            return None;
        }
        if self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        self.ticket += 1;
        self.waiting.insert(self.ticket, Waiting { caller, ask });
        Some(self.ticket)
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        let Some(Waiting { caller, ask }) = self.waiting.remove(&ticket) else { return };
        if let Err(Answer::Added { version, .. }) = caller.send(answer)
            && let Ask::Add { command, aggregate, .. } = ask
        {
            let id = CommandId::from_uuid(Uuid::from_bytes(command));
            self.late.push(Ack { id, aggregate, version: version as u32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked { open: true, ticket: 0, waiting: HashMap::new(), heard: Instant::now(), late: Vec::new() }
    }

    const ADD: Ask = Ask::Add { command: [1; 16], aggregate: 4, amount: 1 };
    const ADDED: Answer = Answer::Added { count: 9, version: 9, duplicate: false };

    #[test]
    fn an_answer_finds_its_caller() {
        let mut asked = asked();
        let ((first, mut one), (second, mut two)) = (oneshot::channel(), oneshot::channel());
        let _ = asked.enter(first, ADD).expect("a ticket");
        let ticket = asked.enter(second, ADD).expect("a ticket");
        asked.answer(ticket, ADDED);
        assert_eq!(two.try_recv(), Ok(ADDED));
        assert!(one.try_recv().is_err() && asked.late.is_empty());
    }

    #[test]
    fn a_promise_that_comes_too_late_is_kept_for_the_check() {
        let mut asked = asked();
        let (caller, waiting) = oneshot::channel();
        let ticket = asked.enter(caller, ADD).expect("a ticket");
        drop(waiting);
        asked.answer(ticket, ADDED);
        assert_eq!((asked.late.len(), asked.late[0].aggregate, asked.late[0].version), (1, 4, 9));
    }

    #[test]
    fn a_connection_that_ended_takes_nothing() {
        let mut asked = asked();
        asked.open = false;
        assert_eq!(asked.enter(oneshot::channel().0, ADD), None);
    }
}
