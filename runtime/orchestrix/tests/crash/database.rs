//! The servers and databases of these stories. They crash servers, so they start their own and never use another one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestrix::core::ShardCount;
use orchestrix::store::{Postgres, PostgresOptions};
use orchestrix_testkit::postgres::PostgresServer;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

/// Starts a server that a story may crash.
pub fn own_server() -> PostgresServer {
    PostgresServer::start().unwrap_or_else(|error| panic!("{error}"))
}

/// The server of the stories that leave it alone.
pub fn shared_server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(own_server)
}

/// Makes a database on a server and returns its URL.
pub async fn make_database(server: &PostgresServer) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("faults_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let mut main = by_hand(&server.url("postgres")).await;
    let text = format!("CREATE DATABASE {name} TEMPLATE template0");
    main.execute(AssertSqlSafe(text)).await.expect("a database can be made");
    format!("{}?sslmode=disable", server.url(&name))
}

/// Returns the URL of the same database through a proxy.
pub fn through(url: &str, server: &PostgresServer, proxy: SocketAddr) -> String {
    url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()))
}

/// Returns where a server listens.
pub fn address(server: &PostgresServer) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, server.port()).into()
}

/// Connects as any other program could.
pub async fn by_hand(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("the stories' own URL");
    options.disable_statement_logging().connect().await.expect("PostgreSQL lets the stories in")
}

/// How a story opens a database: few shards, so that ledgers share them.
pub fn options(url: &str) -> PostgresOptions {
    let shards = ShardCount::new(8).expect("in range");
    let options = Postgres::open(url).expect("the stories' own URL").shards(shards);
    options.pool_size(4).wait(Duration::from_secs(30))
}

/// Opens a database to look at it.
pub async fn look(url: &str) -> Postgres {
    options(url).read_only().connect().await.expect("the database opens")
}
