//! A throw-away PostgreSQL server, made from the binaries of this machine.
//!
//! It lies in a temporary directory, listens on the loopback address and on a socket in that directory, and is as
//! durable as a server for production. It runs as an unprivileged user, also for root. It ends with the
//! [`PostgresServer`], and also when the process that started it is killed.

mod disk;
mod find;
mod user;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub use disk::SmallDisk;
pub use find::find_binaries;

use user::User;

/// The variable that names a server to use instead of a throw-away one.
pub const OVERRIDE: &str = "TEST_DATABASE_URL";

/// How long the server may take to start or to stop, in seconds.
const PATIENCE_S: &str = "60";

/// How often another port is tried when somebody else took the first one in between.
const ATTEMPTS: usize = 5;

/// The settings of a server whose commits survive a power cut: those of a fresh installation, said again.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("max_connections", "300"),
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("logging_collector", "off"),
    ("log_checkpoints", "off"),
];

/// Why a server could not be started or steered, and what to do about it.
#[derive(Debug)]
pub struct ServerError(String);

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServerError {}

fn failed(what: &str, error: impl std::fmt::Display) -> ServerError {
    ServerError(format!("{what}: {error}"))
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, and everything is written back.
    Fast,
    /// As in a crash: nothing is written back, the next start recovers.
    Immediate,
}

/// A running server, which ends with this value.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PathBuf,
    directory: PathBuf,
    /// Where its log of changes lies, when that is not among its other files.
    wal: Option<PathBuf>,
    user: Option<User>,
    password: String,
    port: u16,
    settings: Vec<(String, String)>,
    /// Stops the server when this process is gone, however it went.
    watch: Option<(Child, ChildStdin)>,
}

impl PostgresServer {
    /// Starts a server.
    ///
    /// # Errors
    /// [`ServerError`] with the reason and the remedy, above all when no binaries are found.
    pub fn start() -> Result<Self, ServerError> {
        Self::start_with(&[])
    }

    /// Starts a server with settings of its own, which go before the usual ones.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, ServerError> {
        Self::start_on(&std::env::temp_dir(), None, settings)
    }

    /// Starts a server whose files lie in a directory of its own under `home`, and its log of changes (`pg_wal`) in one
    /// under `wal_home`, which may be other disks.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_on(
        home: &Path,
        wal_home: Option<&Path>,
        settings: &[(&str, &str)],
    ) -> Result<Self, ServerError> {
        let binaries = find_binaries()?;
        let user = User::unprivileged()?;
        let directory = make_directory(home, user.as_ref())?;
        let wal = wal_home.map(|home| make_directory(home, user.as_ref())).transpose()?;
        let settings = SETTINGS.iter().chain(settings).map(|(name, value)| ((*name).into(), (*value).into()));
        let mut server = Self {
            binaries,
            directory,
            wal,
            user,
            password: uuid::Uuid::new_v4().simple().to_string(),
            port: 0,
            settings: settings.collect(),
            watch: None,
        };
        server.initialize()?;
        for attempt in 1.. {
            server.port = free_port()?;
            match server.run() {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
        server.watch = Some(server.start_watch()?);
        Ok(server)
    }

    /// Returns the URL of one of its databases, over the loopback address, for its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Returns the URL of one of its databases over the socket, which costs less than the loopback address.
    pub fn socket_url(&self, database: &str) -> String {
        let directory = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://postgres:{}@{directory}:{}/{database}", self.password, self.port)
    }

    /// Tells whether it accepts connections.
    pub fn is_up(&self) -> bool {
        std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    /// Returns the port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it; [`resume`](Self::resume) starts it again on the same data and the same port.
    ///
    /// # Errors
    /// [`ServerError`] when it does not stop in time.
    pub fn stop(&self, how: Stop) -> Result<(), ServerError> {
        let mode = if how == Stop::Fast { "fast" } else { "immediate" };
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-w", "-t", PATIENCE_S, "-m", mode, "stop"]);
        run(stop, "the server cannot be stopped")
    }

    /// Starts it again after a stop.
    ///
    /// # Errors
    /// [`ServerError`] when it does not come up.
    pub fn resume(&self) -> Result<(), ServerError> {
        self.run()
    }

    /// Freezes its processes for as long as `frozen` runs, as a machine that hangs.
    ///
    /// # Errors
    /// [`ServerError`] when the processes cannot be signalled.
    pub fn freeze<T>(&self, frozen: impl FnOnce() -> T) -> Result<T, ServerError> {
        let main = self.main_process()?;
        signal("-STOP", &main)?;
        let outcome = frozen();
        signal("-CONT", &main)?;
        Ok(outcome)
    }

    /// Returns the process that accepts connections, and all that it has started.
    fn main_process(&self) -> Result<Vec<String>, ServerError> {
        let file = fs::read_to_string(self.data().join("postmaster.pid"));
        let file = file.map_err(|error| failed("the server does not run", error))?;
        let main = file.lines().next().unwrap_or_default().trim().to_owned();
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &main]).output();
        let listed = listed.map_err(|error| failed("`ps` cannot be run; install procps", error))?;
        let children = String::from_utf8_lossy(&listed.stdout).into_owned();
        let children = children.split_ascii_whitespace().map(str::to_owned);
        Ok(std::iter::once(main).chain(children).collect())
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.binaries.join(binary));
        command.current_dir(&self.directory).stdin(Stdio::null());
        // Messages in one language, and nothing of the caller's own database.
        command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGPORT").env_remove("PGHOST");
        if let Some(user) = &self.user {
            user.take_on(&mut command);
        }
        command
    }

    fn initialize(&self) -> Result<(), ServerError> {
        let secret = self.directory.join("password");
        fs::write(&secret, &self.password).map_err(|error| failed("a file cannot be written", error))?;
        if let Some(user) = &self.user {
            user.own(&secret)?;
        }
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data()).arg("--pwfile").arg(&secret);
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
        if let Some(wal) = &self.wal {
            // Small pieces, so that a small disk has room for several.
            initdb.arg("--waldir").arg(wal).arg("--wal-segsize=1");
        }
        run(initdb, "the files of the server cannot be made")
    }

    fn run(&self) -> Result<(), ServerError> {
        let socket = format!("'{}'", self.directory.display());
        let own = [
            ("listen_addresses", "'127.0.0.1'".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", socket),
        ];
        let usual = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let options: Vec<String> =
            usual.chain(own).map(|(name, value)| format!("-c {name}={value}")).collect();
        let log = self.directory.join("log");
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data()).args(["-w", "-t", PATIENCE_S, "-l"]).arg(&log);
        start.arg("-o").arg(options.join(" ")).arg("start");
        // The server keeps what it inherits, so the caller's pipes must not be among it.
        start.stdout(Stdio::null()).stderr(Stdio::null());
        let status = start.status().map_err(|error| failed("pg_ctl cannot be run", error))?;
        if status.success() {
            return Ok(());
        }
        let words = fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = words.lines().rev().take(8).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(ServerError(format!("the server does not start; its log ends with:\n{}", last.join("\n"))))
    }

    /// A shell that waits for the end of its input, which comes when this process is gone, and cleans up then.
    fn start_watch(&self) -> Result<(Child, ChildStdin), ServerError> {
        const SCRIPT: &str =
            "trap '' INT TERM HUP; read -r _; \"$1\" -D \"$2/data\" -w -m immediate stop; rm -rf \"$2\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(self.binaries.join("pg_ctl")).arg(&self.directory);
        shell.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = &self.user {
            user.take_on(&mut shell);
        }
        let mut child = shell.spawn().map_err(|error| failed("`sh` cannot be run", error))?;
        let input = child.stdin.take().ok_or_else(|| ServerError("`sh` has no input".to_owned()))?;
        Ok((child, input))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some((mut child, mut input)) = self.watch.take() {
            // The end of its input sets it going; whatever fails, the directory is only a temporary one.
            let _ = input.write_all(b"\n");
            drop(input);
            let _ = child.wait();
        } else {
            let _ = self.stop(Stop::Immediate);
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn make_directory(home: &Path, user: Option<&User>) -> Result<PathBuf, ServerError> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("orchestrix-pg-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    // A socket's path has room for some hundred bytes only, so it is not put any deeper.
    let directory = home.join(name);
    let made = fs::create_dir(&directory)
        .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)));
    made.map_err(|error| failed(&format!("{} cannot be made", directory.display()), error))?;
    if let Some(user) = user {
        user.own(&directory)?;
    }
    Ok(directory)
}

fn free_port() -> Result<u16, ServerError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| failed("no port is free", error))
}

fn signal(name: &str, processes: &[String]) -> Result<(), ServerError> {
    let mut kill = Command::new("kill");
    kill.arg(name).args(processes);
    run(kill, "the processes of the server cannot be signalled")
}

fn run(mut command: Command, problem: &str) -> Result<(), ServerError> {
    let output = command.output().map_err(|error| failed(problem, error))?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    Err(failed(problem, String::from_utf8_lossy(&words).trim()))
}

/// Tells whether a path leads to a program.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
