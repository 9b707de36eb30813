//! Where the stories take place: a database of its own, copied from a migrated one, on a server that all share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestrix::store::{Postgres, PostgresOptions};
use orchestrix_core::ShardCount;
use orchestrix_testkit::postgres::{OVERRIDE, PostgresServer};
use orchestrix_testkit::proxy::Proxy;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tokio::sync::OnceCell;

/// The server of this test binary, or the one that the environment names. It ends with the process.
enum Server {
    Own(PostgresServer),
    Named(String),
}

impl Server {
    fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| match std::env::var(OVERRIDE) {
            Ok(url) => Self::Named(url),
            Err(_) => Self::Own(PostgresServer::start().unwrap_or_else(|error| panic!("{error}"))),
        })
    }

    /// Returns the URL of one of its databases.
    fn url(&self, database: &str) -> String {
        match self {
            Self::Own(server) => server.url(database),
            Self::Named(url) => {
                let (server, rest) = url.rsplit_once('/').expect("the URL of a database has a path");
                let options =
                    rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
                format!("{server}/{database}{options}")
            }
        }
    }

    /// Returns the URL of a database that is always there.
    fn main_url(&self) -> String {
        match self {
            Self::Own(server) => server.url("postgres"),
            Self::Named(url) => url.clone(),
        }
    }
}

/// The name of a database that no other run of the tests uses.
pub fn fresh_name(word: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("orchestrix_{word}_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Connects as any other program could.
pub(super) async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().expect("the tests' own URL");
    options.disable_statement_logging().connect().await.expect("PostgreSQL lets the tests in")
}

async fn create(database: &str, template: &str) {
    let mut main = connect(&Server::get().main_url()).await;
    let text = format!("CREATE DATABASE {database} TEMPLATE {template}");
    main.execute(AssertSqlSafe(text)).await.expect("a database can be made");
}

/// Returns the name of a database with the schema and nothing else, from which the others are copied.
async fn template() -> &'static str {
    static TEMPLATE: OnceLock<tokio::sync::Mutex<Option<&'static str>>> = OnceLock::new();
    let mut template = TEMPLATE.get_or_init(Default::default).lock().await;
    if let Some(name) = *template {
        return name;
    }
    let name: &'static str = fresh_name("template").leak();
    create(name, "template0").await;
    options(&Server::get().url(name)).migrate().await.expect("the schema can be made");
    *template = Some(name);
    name
}

fn options(url: &str) -> PostgresOptions {
    let shards = ShardCount::new(8).expect("in range");
    Postgres::open(url).expect("the tests' own URL").shards(shards).pool_size(4)
}

/// Room for one database.
#[derive(Clone)]
pub struct Place {
    name: OnceCell<String>,
    is_empty: bool,
}

impl Place {
    /// A database with the schema.
    pub fn new() -> Self {
        Self { name: OnceCell::new(), is_empty: false }
    }

    /// A database without anything.
    pub fn empty() -> Self {
        Self { name: OnceCell::new(), is_empty: true }
    }

    /// Returns its URL; makes it at the first call.
    pub async fn url(&self) -> String {
        let name = self.name.get_or_init(|| async {
            let name = fresh_name("test");
            create(&name, if self.is_empty { "template0" } else { template().await }).await;
            name
        });
        Server::get().url(name.await)
    }

    /// Loses the database with all that is in it, and makes an empty one of the same name. Sessions are cut.
    pub async fn destroy(&self) {
        let name = self.name.get().expect("it was used before");
        let mut main = connect(&Server::get().main_url()).await;
        let text = format!("DROP DATABASE {name} WITH (FORCE)");
        main.execute(AssertSqlSafe(text)).await.expect("a database can be dropped");
        create(name, "template0").await;
    }

    /// Returns its URL for another user.
    pub async fn url_of(&self, user: &str, password: &str) -> String {
        let url = self.url().await;
        let (_, rest) = url.rsplit_once('@').expect("the tests' own URL names a user");
        format!("postgres://{user}:{password}@{rest}")
    }

    /// Removes a user that a story has made.
    pub async fn drop_user(&self, user: &str) {
        let mut hand = self.by_hand().await;
        let text = format!("DROP OWNED BY {user}; DROP ROLE {user}");
        hand.execute(AssertSqlSafe(text)).await.expect("the user can be removed");
    }

    /// Returns how the store opens it in the tests.
    pub async fn options(&self) -> PostgresOptions {
        options(&self.url().await)
    }

    /// Makes a proxy to its server, and returns how the store opens it through that.
    pub async fn through_proxy(&self) -> (Proxy, PostgresOptions) {
        let url = self.url().await;
        let options: PgConnectOptions = url.parse().expect("the tests' own URL");
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let found = tokio::net::lookup_host(&server).await.ok().and_then(|mut found| found.next());
        let found = found.unwrap_or_else(|| panic!("the proxy needs a server at a port, not at {server}"));
        let proxy = Proxy::start(found).await.expect("a proxy can be started");
        let (place, database) = url.rsplit_once('/').expect("the URL of a database has a path");
        let place = place.replace(&server, &proxy.address().to_string());
        let name = database.split('?').next().unwrap_or(database);
        (proxy, self::options(&format!("{place}/{name}?sslmode=disable")))
    }

    pub async fn open(&self) -> Postgres {
        self.options().await.connect().await.expect("the database opens")
    }

    /// Opens it as any other program could.
    pub async fn by_hand(&self) -> PgConnection {
        connect(&self.url().await).await
    }
}
