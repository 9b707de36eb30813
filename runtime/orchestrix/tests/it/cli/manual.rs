//! The manual and the code say the same.

use std::collections::BTreeSet;

const ERRORS: &str = include_str!("../../../../../docs/operations/errors.md");

/// The files that define the errors of the manual's tables, and the enums in each.
const SOURCES: &[(&str, &[&str])] = &[
    (
        include_str!("../../../src/error.rs"),
        &["SendError", "NotAttempted", "SaveError", "HistoryError", "StartError"],
    ),
    (include_str!("../../../src/config/error.rs"), &["ConfigError"]),
    (include_str!("../../../src/store/sqlite/error.rs"), &["OpenError"]),
    (include_str!("../../../src/store/postgres/open_error.rs"), &["PostgresOpenError"]),
    (
        include_str!("../../../../orchestrix-core/src/store/error.rs"),
        &["ReadError", "WriteError", "ClaimError"],
    ),
    (include_str!("../../../../orchestrix-core/src/store/import.rs"), &["ImportError"]),
    (include_str!("../../../../orchestrix-core/src/codec/mod.rs"), &["DecodeError"]),
    (include_str!("../../../src/ops/backup/error.rs"), &["BackupError", "RestoreError"]),
    (include_str!("../../../src/cluster/transport/mod.rs"), &["BindError"]),
    (include_str!("../../../src/cluster/transport/tls.rs"), &["TlsError"]),
    (include_str!("../../../src/cluster/wire/hello.rs"), &["Unwelcome"]),
];

/// Returns `Enum::Variant` for each variant: in formatted code they stand four spaces in, and nothing else of an
/// enum does that starts with a capital.
fn variants(source: &str, name: &str) -> Vec<String> {
    let head = format!("pub enum {name}");
    let body = source
        .lines()
        .skip_while(|line| !line.strip_prefix(&head).is_some_and(|rest| rest.starts_with([' ', '<'])));
    let body = body.skip(1).take_while(|line| *line != "}");
    let names =
        body.filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase)));
    names
        .map(|line| line.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default())
        .map(|variant| format!("{name}::{variant}"))
        .collect()
}

fn rows<'a>(text: &'a str, of: &str) -> Vec<&'a str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.filter(|cell| cell.starts_with(of)).collect()
}

#[test]
fn every_error_has_exactly_one_row() {
    for (source, names) in SOURCES {
        for name in *names {
            let mut known = variants(source, name);
            assert!(!known.is_empty(), "{name} is not where it was");
            let mut listed = rows(ERRORS, &format!("{name}::"));
            known.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, known);
        }
    }
}

#[test]
fn every_kind_of_error_is_explained() {
    for kind in orchestrix::telemetry::metrics::ERROR_KINDS {
        let explained = ERRORS.contains(&format!("(`{kind}`)")) || rows(ERRORS, kind).contains(kind);
        assert!(explained, "{kind}");
    }
}

#[test]
fn the_manual_lists_exactly_the_commands_that_exist() {
    let manual = include_str!("../../../../../docs/operations/cli.md");
    let table = manual.split("## Commands").nth(1).expect("there is such a part");
    let listed: BTreeSet<&str> = rows(table, "").iter().filter_map(|cell| cell.split(' ').next()).collect();
    let place = super::Place::new();
    let help = place.run(&["--help"]).ok().out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut known: BTreeSet<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    known.remove("help");
    known.extend(["serve", "show", "rebuild-snapshots"]);
    assert_eq!(listed, known);
}
