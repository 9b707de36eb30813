//! Databases on a PostgreSQL server: one that was named, or a throw-away one that ends with this process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, anyhow};
use orchestrix_testkit::postgres::PostgresServer;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::sync::OnceCell;

/// A database on a server. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    url: String,
    /// Where a temporary one is made and removed, and its name.
    temporary: Option<(String, String)>,
    made: OnceCell<()>,
}

impl Guest {
    /// Names a database that is there and stays there.
    pub(crate) fn of(url: &str) -> Self {
        Self { url: url.to_owned(), temporary: None, made: OnceCell::new() }
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes it, if it is a temporary one that was not made yet.
    ///
    /// # Errors
    /// When the server does not let it.
    pub(crate) async fn make(&self) -> anyhow::Result<()> {
        let Some((main, name)) = &self.temporary else { return Ok(()) };
        let text = format!("CREATE DATABASE {name} TEMPLATE template0");
        self.made.get_or_try_init(|| execute(main, text)).await.copied()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some((main, name)) = self.temporary.take().filter(|_| self.made.initialized()) else { return };
        // A thread of its own, since this one may be carrying the runtime that would have to do it.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Before the next measurement: what this one left to be written is not the next one's work.
            runtime.block_on(execute(&main, format!("DROP DATABASE {name} WITH (FORCE)")))?;
            runtime.block_on(execute(&main, "CHECKPOINT".to_owned()))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("loadtest: a temporary database is left on the server: {error:#}"),
            Err(_) => eprintln!("loadtest: a temporary database is left on the server"),
        }
    }
}

/// Names a temporary database on the server of this URL, or on a server of its own.
///
/// # Errors
/// When the server cannot be started.
pub(crate) fn temporary(url: Option<&str>) -> anyhow::Result<Guest> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("loadtest_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let (main, own) = if let Some(url) = url {
        (url.to_owned(), beside(url, &name)?)
    } else {
        let server = own_server()?;
        (server.socket_url("postgres"), server.socket_url(&name))
    };
    Ok(Guest { url: own, temporary: Some((main, name)), made: OnceCell::new() })
}

/// Returns the URL of another database on the same server.
fn beside(url: &str, name: &str) -> anyhow::Result<String> {
    let (place, options) = url.split_once('?').map_or((url, None), |(place, options)| (place, Some(options)));
    let (scheme, rest) = place.split_once("://").context("the URL has no scheme")?;
    let server = rest.split('/').next().unwrap_or_default();
    let options = options.map_or_else(String::new, |options| format!("?{options}"));
    Ok(format!("{scheme}://{server}/{name}{options}"))
}

fn own_server() -> anyhow::Result<&'static PostgresServer> {
    static SERVER: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
    let started = SERVER.get_or_init(|| PostgresServer::start().map_err(|error| error.to_string()));
    started.as_ref().map_err(|error| anyhow!(error.clone()))
}

async fn execute(url: &str, text: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await.context("the server does not answer")?;
    connection
        .execute(AssertSqlSafe(text))
        .await
        .context("a temporary database could not be made or removed")?;
    connection.close().await.context("the server does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server_keeps_everything_else() {
        let url = |url| beside(url, "other").expect("a URL");
        assert_eq!(
            url("postgres://ada:pw@db:5433/bank?sslmode=require"),
            "postgres://ada:pw@db:5433/other?sslmode=require"
        );
        assert_eq!(url("postgres://localhost"), "postgres://localhost/other");
    }
}
