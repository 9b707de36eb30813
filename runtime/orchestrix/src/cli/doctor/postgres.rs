//! `doctor` on PostgreSQL: what the server says about itself, judged. The judgement is a function of the report.

use std::time::Duration;

use orchestrix_core::{Clock, EventStore, SystemClock, Timestamp};

use super::{Check, Verdict, check, contents};
use crate::cli::context::{Context, Migrate};
use crate::cli::output::human_bytes;
use crate::config::DatabaseUrl;
use crate::store::{PostgresOpenError, ServerReport};

/// A clock that is further off than this makes the times of events useless to people.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(2);

/// A day, and two hours for the backup itself.
const BACKUP_AGE_MAX: Duration = Duration::from_hours(26);

/// Dead rows beyond this, and beyond a fifth of the live ones, are worth a word.
const DEAD_ROWS_MIN: i64 = 100_000;

/// Looks at the server that the settings name.
pub(super) async fn run(context: &Context, url: &DatabaseUrl, checks: &mut Vec<Check>) {
    let store = match context.config.postgres(url) {
        Ok(options) => options.read_only().connect().await,
        Err(error) => Err(error),
    };
    let store = match store {
        Ok(store) => store,
        Err(error @ PostgresOpenError::Pending { .. }) => {
            checks.push(check("database", Verdict::Warn, error.to_string()).must());
            return;
        }
        Err(error) => {
            checks.push(check("database", Verdict::Fail, error.to_string()));
            return;
        }
    };
    checks.push(check("database", Verdict::Ok, format!("{url} answers")));
    let asked = SystemClock.now();
    match store.report().await {
        Ok(report) => {
            let now = SystemClock.now();
            let connections =
                i64::from(context.config.database_pool_size + context.config.postgres.pool_overflow);
            checks.extend(judge(&report, (asked, now), connections + 2));
        }
        Err(error) => checks.push(check("server", Verdict::Fail, error.to_string())),
    }
    store.close().await;
    checks.push(super::applied(context.migrate(Migrate::Status).await.map_err(|error| error.to_string())));
    contents(&context.config, checks).await;
}

/// Judges a report that was asked for and answered at these moments, for a service with so many connections.
fn judge(report: &ServerReport, asked: (Timestamp, Timestamp), connections: i64) -> Vec<Check> {
    let mut checks = vec![
        check("server", Verdict::Ok, format!("PostgreSQL {}", report.version)),
        durability(report),
        clock(report.clock, asked),
        encryption(report),
        rights(report),
        roles(report),
        free_connections(report, connections),
        vacuum(report),
        replication(report),
        page_checksums(report),
        backup(report.last_backup, asked.1),
        owners(report),
    ];
    if let Some(import) = &report.importing {
        let detail =
            format!("a restore was not finished ({import}); run `restore` with the same backup again");
        checks.push(check("restore", Verdict::Fail, detail));
    }
    checks
}

fn durability(report: &ServerReport) -> Check {
    let settings = [
        ("fsync", &report.fsync),
        ("full_page_writes", &report.full_page_writes),
        ("synchronous_commit", &report.synchronous_commit),
    ];
    let off: Vec<&str> =
        settings.iter().filter(|(_, value)| *value == "off").map(|(name, _)| *name).collect();
    if off.is_empty() {
        let level = &report.synchronous_commit;
        return check(
            "durability",
            Verdict::Ok,
            format!("commits survive a power cut (synchronous_commit={level})"),
        );
    }
    let names = off.join(", ");
    let detail =
        format!("{names} is off: a power cut loses acknowledged events; turn it on in postgresql.conf");
    check("durability", Verdict::Fail, detail)
}

fn clock(server: Timestamp, (asked, answered): (Timestamp, Timestamp)) -> Check {
    // The answer was made at some moment between the two.
    let early = asked.as_micros() - server.as_micros();
    let late = server.as_micros() - answered.as_micros();
    let off = Duration::from_micros(early.max(late).max(0) as u64);
    let detail = format!("the server's clock is {} ms off this machine's", off.as_millis());
    if off > CLOCK_OFF_MAX {
        check("clock", Verdict::Warn, format!("{detail}; let both follow the same time service")).must()
    } else {
        check("clock", Verdict::Ok, detail)
    }
}

fn encryption(report: &ServerReport) -> Check {
    match (report.is_encrypted, report.is_local) {
        (true, _) => check("encryption", Verdict::Ok, "the connection is encrypted"),
        (false, true) => check("encryption", Verdict::Ok, "the connection stays on this machine"),
        (false, false) => check(
            "encryption",
            Verdict::Warn,
            "events and passwords cross the network in the clear; add ?sslmode=verify-full&sslrootcert=... to DATABASE_URL",
        )
        .must(),
    }
}

fn rights(report: &ServerReport) -> Check {
    let user = &report.user;
    if report.is_superuser {
        let detail =
            format!("{user} is a superuser, for whom no rule holds; give the service a user of its own");
        return check("rights", Verdict::Warn, detail).must();
    }
    if report.may_change_events {
        let detail = format!(
            "{user} may change or remove events; give the service a user with orchestrix_writer alone"
        );
        return check("rights", Verdict::Warn, detail).must();
    }
    check("rights", Verdict::Ok, format!("{user} can neither change nor remove an event"))
}

fn roles(report: &ServerReport) -> Check {
    if report.roles >= 6 {
        return check(
            "roles",
            Verdict::Ok,
            "owner, migrator, writer, reader, projector and archiver are there",
        );
    }
    let detail = format!(
        "{} of the 6 roles are there, since the user of the migration may not make any; see \
         docs/operations/postgres.md for how to make them",
        report.roles
    );
    check("roles", Verdict::Warn, detail)
}

fn free_connections(report: &ServerReport, wanted: i64) -> Check {
    let free = report.connections_max - report.connections;
    let detail = format!("{free} of {} are free, a node takes up to {wanted}", report.connections_max);
    if free < wanted {
        let detail =
            format!("{detail}; lower DATABASE_POOL_SIZE, raise max_connections, or put PgBouncer in between");
        check("connections", Verdict::Warn, detail).must()
    } else {
        check("connections", Verdict::Ok, detail)
    }
}

fn vacuum(report: &ServerReport) -> Check {
    if report.autovacuum == "off" {
        let detail = "autovacuum is off: dead rows pile up, and the server stops in the end; turn it on";
        return check("vacuum", Verdict::Warn, detail).must();
    }
    let swollen =
        report.tables.iter().filter(|table| table.dead > DEAD_ROWS_MIN && table.dead > table.live / 5);
    match swollen.max_by_key(|table| table.dead) {
        None => check("vacuum", Verdict::Ok, "no table has many dead rows"),
        Some(table) => {
            let (name, dead, bytes) = (&table.name, table.dead, human_bytes(table.bytes.max(0) as u64));
            let detail =
                format!("{name} has {dead} dead rows in {bytes}; run VACUUM (ANALYZE) orchestrix.{name}");
            check("vacuum", Verdict::Warn, detail)
        }
    }
}

/// A fail-over to a standby that does not have every acknowledged commit loses commands.
fn replication(report: &ServerReport) -> Check {
    let level = report.synchronous_commit.as_str();
    if report.standbys == 0 && report.synchronous_standby_names.is_empty() {
        let archive = if report.archive_mode == "off" {
            "and no archive of its log"
        } else {
            "and an archive of its log"
        };
        let detail =
            format!("the server has no standby, {archive}: what it loses is back from a backup only");
        return check("replication", Verdict::Ok, detail);
    }
    if report.synchronous_standby_names.is_empty() {
        let detail = "standbys are asynchronous: promoting one loses acknowledged commands; set synchronous_standby_names";
        return check("replication", Verdict::Warn, detail);
    }
    if matches!(level, "local" | "remote_write") {
        let detail = format!(
            "synchronous_commit is {level}: promoting a standby may lose acknowledged commands; set it to on or remote_apply"
        );
        return check("replication", Verdict::Warn, detail).must();
    }
    if report.standbys_synchronous == 0 {
        let detail = "no synchronous standby is connected, so every commit waits for one; bring one back";
        return check("replication", Verdict::Fail, detail);
    }
    let (all, synchronous) = (report.standbys, report.standbys_synchronous);
    check("replication", Verdict::Ok, format!("{synchronous} of {all} standbys have what was acknowledged"))
}

fn page_checksums(report: &ServerReport) -> Check {
    if report.data_checksums == "on" {
        check("checksums", Verdict::Ok, "pages of the database have checksums")
    } else {
        let detail = "pages of the database have no checksums; stop the server and run pg_checksums --enable";
        check("checksums", Verdict::Warn, detail)
    }
}

fn backup(last: Option<Timestamp>, now: Timestamp) -> Check {
    let Some(last) = last else {
        let detail = "the database knows of no backup; run `backup`, and see docs/operations/backup.md";
        return check("backup", Verdict::Warn, detail).must();
    };
    let age = Duration::from_micros((now.as_micros() - last.as_micros()).max(0) as u64);
    let detail = format!("the last one ended {} hours ago", age.as_secs() / 3_600);
    if age > BACKUP_AGE_MAX {
        check("backup", Verdict::Warn, format!("{detail}; find out why no newer one was taken")).must()
    } else {
        check("backup", Verdict::Ok, detail)
    }
}

fn owners(report: &ServerReport) -> Check {
    let over: Vec<_> =
        report.holders.iter().filter(|holder| holder.name.is_some() && holder.lease_s <= 0).collect();
    let names = report.holders.iter().filter_map(|holder| {
        let name = holder.name.as_deref()?;
        Some(format!("{name} holds {} shards for {} s", holder.shards, holder.lease_s))
    });
    let names = names.collect::<Vec<_>>().join(", ");
    if let Some(first) = over.first() {
        let name = first.name.as_deref().unwrap_or_default();
        let detail =
            format!("the lease of {name} is over and nobody has taken its shards; start a node ({names})");
        return check("owners", Verdict::Warn, detail);
    }
    // A run that is no member has left, and what it owned waits for somebody as well.
    let left: i64 =
        report.holders.iter().filter(|holder| holder.name.is_none()).map(|holder| holder.shards).sum();
    match (names.is_empty(), report.shards_free + left) {
        (true, _) => check("owners", Verdict::Ok, "no node runs"),
        (false, 0) => check("owners", Verdict::Ok, names),
        (false, free) => {
            check("owners", Verdict::Warn, format!("{names}; {free} shards have no owner; see `cluster`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::Incarnation;

    use super::*;
    use crate::store::{ReportedHolder, ReportedTable};

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn sound() -> ServerReport {
        let on = || "on".to_owned();
        ServerReport {
            version: "15.4".to_owned(),
            fsync: on(),
            full_page_writes: on(),
            synchronous_commit: on(),
            synchronous_standby_names: "FIRST 1 (one)".to_owned(),
            autovacuum: on(),
            data_checksums: on(),
            archive_mode: on(),
            clock: NOW,
            connections: 10,
            connections_max: 97,
            is_encrypted: true,
            is_local: false,
            user: "bank".to_owned(),
            is_superuser: false,
            may_change_events: false,
            roles: 6,
            last_backup: Some(NOW.minus(Duration::from_hours(3))),
            importing: None,
            shards_free: 0,
            standbys: 1,
            standbys_synchronous: 1,
            holders: vec![ReportedHolder {
                run: Incarnation::fresh(),
                name: Some("ada".to_owned()),
                shards: 256,
                lease_s: 5,
                deposed: false,
            }],
            tables: Vec::new(),
        }
    }

    fn found(report: &ServerReport) -> Vec<(&'static str, Verdict, bool)> {
        let checks = judge(report, (NOW, NOW), 8);
        checks
            .iter()
            .filter(|one| one.verdict != Verdict::Ok)
            .map(|one| (one.name, one.verdict, one.must))
            .collect()
    }

    #[test]
    fn a_sound_server_has_nothing_to_say() {
        assert_eq!(found(&sound()), []);
    }

    /// Each fault alone is found, and nothing else is.
    #[test]
    fn each_fault_is_found_and_told_with_what_to_do() {
        type Fault = fn(&mut ServerReport);
        let faults: [(Fault, &str, Verdict, bool); 17] = [
            (|r| r.fsync = "off".into(), "durability", Verdict::Fail, false),
            (|r| r.full_page_writes = "off".into(), "durability", Verdict::Fail, false),
            (|r| r.clock = NOW.plus(Duration::from_secs(9)), "clock", Verdict::Warn, true),
            (|r| r.clock = NOW.minus(Duration::from_secs(9)), "clock", Verdict::Warn, true),
            (|r| r.is_encrypted = false, "encryption", Verdict::Warn, true),
            (|r| r.is_superuser = true, "rights", Verdict::Warn, true),
            (|r| r.may_change_events = true, "rights", Verdict::Warn, true),
            (|r| r.roles = 0, "roles", Verdict::Warn, false),
            (|r| r.connections = 92, "connections", Verdict::Warn, true),
            (|r| r.autovacuum = "off".into(), "vacuum", Verdict::Warn, true),
            (|r| r.synchronous_standby_names = String::new(), "replication", Verdict::Warn, false),
            (|r| r.synchronous_commit = "remote_write".into(), "replication", Verdict::Warn, true),
            (|r| r.standbys_synchronous = 0, "replication", Verdict::Fail, false),
            (|r| r.data_checksums = "off".into(), "checksums", Verdict::Warn, false),
            (|r| r.last_backup = None, "backup", Verdict::Warn, true),
            (|r| r.last_backup = Some(NOW.minus(Duration::from_hours(27))), "backup", Verdict::Warn, true),
            (|r| r.importing = Some("backup x".into()), "restore", Verdict::Fail, false),
        ];
        for (fault, name, verdict, must) in faults {
            let mut report = sound();
            fault(&mut report);
            assert_eq!(found(&report), [(name, verdict, must)]);
        }
    }

    #[test]
    fn a_lease_that_is_over_and_free_shards_are_told() {
        let mut report = sound();
        report.holders[0].lease_s = -3;
        assert_eq!(found(&report), [("owners", Verdict::Warn, false)]);
        report.holders[0].lease_s = 3;
        report.shards_free = 7;
        assert_eq!(found(&report), [("owners", Verdict::Warn, false)]);
        report.shards_free = 0;
        report.holders.push(ReportedHolder { name: None, shards: 3, ..report.holders[0].clone() });
        assert_eq!(found(&report), [("owners", Verdict::Warn, false)]);
        assert!(owners(&report).detail.contains("3 shards have no owner"), "{:?}", owners(&report));
    }

    #[test]
    fn a_table_with_many_dead_rows_is_named_with_the_statement_to_run() {
        let mut report = sound();
        report.tables =
            vec![ReportedTable { name: "snapshots".to_owned(), live: 1_000, dead: 900_000, bytes: 1 << 30 }];
        let check = vacuum(&report);
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(check.detail.contains("VACUUM (ANALYZE) orchestrix.snapshots"), "{}", check.detail);
    }
}
