//! Traps: where a connection is disturbed, and how.

use tokio::sync::watch;

/// Where a trap springs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the next connection, before anything was said in it.
    Connect,
    /// At the next execution of a statement whose text contains this.
    Statement(&'static str),
}

/// What happens where it springs. A cut ends the connection on both sides, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Cuts before the request is passed on.
    BeforeRequest,
    /// Passes half of the request on, then cuts.
    InRequest,
    /// Passes the request on, then cuts at once.
    AfterRequest,
    /// Passes the request on, waits for the whole answer, keeps it, then cuts.
    SwallowAnswer,
    /// Passes the request and half of the answer on, then cuts.
    InAnswer,
    /// Passes the request and the whole answer on, then cuts at once: perhaps before anybody has read it.
    AfterAnswer,
    /// Cuts one way: what the client says is still passed on, what the server says is not.
    Answers,
    /// Cuts when this many bytes of the client were passed on.
    AfterClientBytes(usize),
    /// Cuts when this many bytes of the server were passed on.
    AfterServerBytes(usize),
    /// Cuts the client off; passes the request on when it is released, and keeps the answer.
    HoldRequest,
    /// Keeps the request until it is released, without a cut.
    DelayRequest,
    /// Passes the request on; keeps the answer until it is released, without a cut.
    DelayAnswer,
}

/// How far a trap has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Armed,
    Sprung,
    Over(Answer),
}

/// What became of a request that a trap had in its hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server carried the statement out, whatever it answered.
    Done,
    /// The server refused the statement.
    Error,
    /// Nobody knows.
    None,
}

/// A trap that was set.
#[derive(Debug)]
pub struct Armed {
    pub(super) stage: watch::Receiver<Stage>,
}

impl Armed {
    /// Waits until the trap has sprung.
    ///
    /// # Panics
    /// When the proxy is gone before.
    ///
    /// # Cancel safety
    /// It only looks; dropping it changes nothing.
    pub async fn sprung(&self) {
        let mut stage = self.stage.clone();
        stage.wait_for(|stage| *stage != Stage::Armed).await.expect("the trap springs while the proxy lives");
    }

    /// Waits until the trap has done all that it does, and returns what the server answered as far as it was heard.
    ///
    /// # Cancel safety
    /// It only looks; dropping it changes nothing.
    pub async fn over(&self) -> Answer {
        let mut stage = self.stage.clone();
        let over = stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
        match over.as_deref() {
            Ok(Stage::Over(answer)) => *answer,
            // The connection ended in its hands.
            _ => Answer::None,
        }
    }

    /// Tells whether it has sprung.
    pub fn has_sprung(&self) -> bool {
        *self.stage.borrow() != Stage::Armed
    }
}

/// A trap in the proxy's hands.
#[derive(Debug)]
pub(super) struct Trap {
    pub(super) at: At,
    pub(super) cut: Cut,
    pub(super) stage: watch::Sender<Stage>,
    /// How often things were released before it sprang.
    pub(super) releases: u64,
}

impl Trap {
    pub(super) fn spring(&mut self, releases: u64) {
        self.releases = releases;
        self.stage.send_replace(Stage::Sprung);
    }

    pub(super) fn end(&self, answer: Answer) {
        self.stage.send_replace(Stage::Over(answer));
    }
}
