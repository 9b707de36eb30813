//! A node's process: started, killed, stopped for a while, asked to leave.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// How long a node may take to join: it waits for what a crash has left behind.
const START_MAX: Duration = Duration::from_secs(90);

/// How long a node may take to leave: its own limit for a shutdown and a little more.
const LEAVE_MAX: Duration = Duration::from_secs(40);

/// What every node of a cluster is started with.
#[derive(Clone, Debug)]
pub(super) struct NodeOptions {
    /// The database.
    pub(super) url: String,
    /// The lease.
    pub(super) lease: Duration,
    /// Bytes of a stored payload.
    pub(super) payload_bytes: usize,
    /// Appends under way at once, where that was asked for.
    pub(super) lanes: Option<u8>,
}

impl NodeOptions {
    fn command(&self) -> anyhow::Result<Command> {
        let mut command =
            Command::new(std::env::current_exe().context("the path of this program is not known")?);
        command.args(["cluster-node", "--store", "postgres", "--url", &self.url]);
        command.args(["--lease", &self.lease.as_secs_f64().to_string()]);
        command.args(["--payload", &self.payload_bytes.to_string()]);
        if let Some(lanes) = self.lanes {
            command.args(["--lanes", &lanes.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }
}

/// A running node. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
    clients: SocketAddr,
    /// The node ends when this does.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts a node and waits until it has joined.
    ///
    /// # Errors
    /// When it ends instead, or takes longer than a minute and a half.
    pub(super) async fn start(options: &NodeOptions) -> anyhow::Result<Self> {
        let mut child = options.command()?.spawn().context("this program could not be started again")?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32)).context("a node has no process")?;
        let output = child.stdout.take().context("a node has no output")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let told = tokio::time::timeout(START_MAX, output.read_line(&mut line)).await;
        told.context("a node did not join in time")?.context("a node could not be listened to")?;
        ensure!(!line.is_empty(), "a node ended before it had joined");
        let clients = line.trim().parse().context("a node did not tell where its clients find it")?;
        Ok(Self { child, pid, clients, _stdin: stdin })
    }

    /// Returns where clients find it.
    pub(super) fn clients(&self) -> SocketAddr {
        self.clients
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// When it had already ended.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await.context("nobody waited for a node")?;
        Ok(())
    }

    /// Stops it until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to leave, and waits until it has.
    ///
    /// # Errors
    /// When it does not leave in time, or ends otherwise than it should.
    pub(super) async fn leave(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(LEAVE_MAX, self.child.wait()).await;
        let status: ExitStatus =
            ended.context("a node did not leave in time")?.context("nobody waited for a node")?;
        ensure!(status.success(), "a node that was asked to leave ended with {status}");
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // The number of a process that was waited for may be another process's by now.
        let ended = self.child.try_wait().context("nobody knows how a node is")?;
        ensure!(ended.is_none(), "a node has ended by itself: {}", ended.unwrap_or_default());
        kill_process(self.pid, signal).context("a node could not be signalled")
    }
}
