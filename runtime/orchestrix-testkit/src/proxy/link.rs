//! One connection through the proxy.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::trap::{Answer, At, Cut, Trap};
use super::wire::{Frames, Message, Statements};
use super::{Shared, Switches};

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    Cut,
}

/// A client, the server, and what was said so far.
pub(super) struct Link {
    shared: Arc<Shared>,
    client: TcpStream,
    server: TcpStream,
    from_client: Frames,
    from_server: Frames,
    statements: Statements,
    /// The messages of a request that has not ended yet, and the statement that it executes.
    request: Vec<u8>,
    executes: Option<String>,
    /// The answer of a request that a trap waits for.
    answer: Vec<u8>,
    heard: Answer,
    waiting: Option<Trap>,
    /// Cut when so many bytes of the client or of the server were passed on.
    client_bytes_left: Option<usize>,
    server_bytes_left: Option<usize>,
    /// Nothing is passed to the client any more.
    is_deaf: bool,
    has_client_left: bool,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, client: TcpStream, server: TcpStream) -> Self {
        Self {
            shared,
            client,
            server,
            from_client: Frames::of_client(),
            from_server: Frames::of_server(),
            statements: Statements::default(),
            request: Vec::new(),
            executes: None,
            answer: Vec::new(),
            heard: Answer::None,
            waiting: None,
            client_bytes_left: None,
            server_bytes_left: None,
            is_deaf: false,
            has_client_left: false,
        }
    }

    /// Passes on what both sides say until one of them ends, or the connection is cut.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.client.set_nodelay(true)?;
        self.server.set_nodelay(true)?;
        if let Some(trap) = self.shared.spring(At::Connect, "") {
            match trap.cut {
                Cut::AfterClientBytes(bytes) => self.client_bytes_left = Some(bytes),
                Cut::AfterServerBytes(bytes) => self.server_bytes_left = Some(bytes),
                _ => return Ok(()),
            }
        }
        let mut switches = self.shared.switches.subscribe();
        let Switches { cuts, .. } = *switches.borrow_and_update();
        loop {
            let now = *switches.borrow_and_update();
            if now.cuts != cuts {
                return Ok(());
            }
            self.from_client.buffer.reserve(READ_BYTES);
            self.from_server.buffer.reserve(READ_BYTES);
            let goes = tokio::select! {
                _ = switches.changed() => Goes::On,
                read = self.client.read_buf(&mut self.from_client.buffer), if !now.stalled && !self.has_client_left => {
                    if read? == 0 { self.on_client_left() } else { self.on_client().await? }
                }
                read = self.server.read_buf(&mut self.from_server.buffer), if !now.stalled => {
                    if read? == 0 { Goes::Cut } else { self.on_server().await? }
                }
            };
            if goes == Goes::Cut {
                return Ok(());
            }
        }
    }

    /// What a trap still has in its hands is brought to its end.
    fn on_client_left(&mut self) -> Goes {
        self.has_client_left = true;
        if self.waiting.is_some() { Goes::On } else { Goes::Cut }
    }

    async fn on_client(&mut self) -> io::Result<Goes> {
        while let Some(message) = self.from_client.next() {
            if let Some(text) = self.statements.on_message(&message) {
                self.executes = Some(text);
            }
            self.request.extend(&message.bytes);
            if message.ends_request() {
                let request = std::mem::take(&mut self.request);
                let executes = self.executes.take();
                if self.on_request(&request, executes.as_deref()).await? == Goes::Cut {
                    return Ok(Goes::Cut);
                }
            }
        }
        Ok(Goes::On)
    }

    async fn on_request(&mut self, request: &[u8], executes: Option<&str>) -> io::Result<Goes> {
        let trap = executes.and_then(|text| self.shared.spring(At::Statement(""), text));
        let Some(trap) = trap else { return self.tell_server(request).await };
        match trap.cut {
            Cut::BeforeRequest | Cut::AfterClientBytes(_) | Cut::AfterServerBytes(_) => Ok(Goes::Cut),
            Cut::InRequest => self.tell_server(&request[..request.len() / 2]).await.map(|_| Goes::Cut),
            Cut::AfterRequest => self.tell_server(request).await.map(|_| Goes::Cut),
            Cut::Answers => {
                self.client.shutdown().await?;
                self.is_deaf = true;
                self.tell_server(request).await
            }
            Cut::HoldRequest => {
                self.client.shutdown().await?;
                self.is_deaf = true;
                self.shared.until_released(&trap).await;
                self.expect_answer(trap, request).await
            }
            Cut::DelayRequest => {
                self.shared.until_released(&trap).await;
                self.expect_answer(trap, request).await
            }
            Cut::SwallowAnswer | Cut::InAnswer | Cut::AfterAnswer | Cut::DelayAnswer => {
                self.expect_answer(trap, request).await
            }
        }
    }

    async fn expect_answer(&mut self, trap: Trap, request: &[u8]) -> io::Result<Goes> {
        self.waiting = Some(trap);
        self.answer.clear();
        self.heard = Answer::Done;
        self.tell_server(request).await
    }

    async fn on_server(&mut self) -> io::Result<Goes> {
        while let Some(message) = self.from_server.next() {
            let goes = if self.waiting.is_some() {
                self.on_awaited(&message).await?
            } else {
                self.tell_client(&message.bytes).await?
            };
            if goes == Goes::Cut {
                return Ok(Goes::Cut);
            }
        }
        Ok(Goes::On)
    }

    /// A part of the answer that a trap waits for.
    async fn on_awaited(&mut self, message: &Message) -> io::Result<Goes> {
        self.answer.extend(&message.bytes);
        if message.is_error() {
            self.heard = Answer::Error;
        }
        if !message.ends_answer() {
            return Ok(Goes::On);
        }
        let Some(trap) = self.waiting.take() else { return Ok(Goes::On) };
        let answer = std::mem::take(&mut self.answer);
        let goes = match trap.cut {
            Cut::InAnswer => self.tell_client(&answer[..answer.len() / 2]).await.map(|_| Goes::Cut),
            Cut::AfterAnswer => self.tell_client(&answer).await.map(|_| Goes::Cut),
            Cut::DelayRequest => self.tell_client(&answer).await,
            Cut::DelayAnswer => {
                self.shared.until_released(&trap).await;
                self.tell_client(&answer).await
            }
            _ => Ok(Goes::Cut),
        };
        trap.end(self.heard);
        goes
    }

    async fn tell_server(&mut self, bytes: &[u8]) -> io::Result<Goes> {
        pass(&mut self.server, bytes, &mut self.client_bytes_left).await
    }

    async fn tell_client(&mut self, bytes: &[u8]) -> io::Result<Goes> {
        if self.is_deaf {
            return Ok(Goes::On);
        }
        pass(&mut self.client, bytes, &mut self.server_bytes_left).await
    }
}

/// Writes as many bytes as may still pass.
async fn pass(to: &mut TcpStream, bytes: &[u8], left: &mut Option<usize>) -> io::Result<Goes> {
    let Some(left) = left else { return to.write_all(bytes).await.map(|()| Goes::On) };
    let now = bytes.len().min(*left);
    *left -= now;
    to.write_all(&bytes[..now]).await?;
    Ok(if *left == 0 { Goes::Cut } else { Goes::On })
}
