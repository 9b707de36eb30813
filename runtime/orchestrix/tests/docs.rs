//! Keeps the Markdown pages true: links lead somewhere, and the bounds they state are those of the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The top of the repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Collects the Markdown pages under a folder, without those that builds and programs leave behind.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_left_behind = name.starts_with('.') || name == "target" || name == "data";
        if path.is_dir() && !is_left_behind {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// Returns the lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Returns the targets of the links in a page that do not leave the repository.
fn links(text: &str) -> Vec<String> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    let targets = targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// Returns the anchors that the headings of a page make.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

/// Turns a heading into its anchor, as GitHub does: lower case, dashes for spaces, no punctuation.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Says what is wrong with a link, if anything is.
fn problem(page: &Path, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let to = if path.is_empty() { page.to_owned() } else { page.parent()?.join(path) };
    if !to.exists() {
        return Some(format!("{}: {target} does not exist", page.display()));
    }
    let is_missing = !anchor.is_empty() && !anchors(&read(&to)).contains(anchor);
    is_missing.then(|| format!("{}: {target} has no such heading", page.display()))
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut found = Vec::new();
    pages(&top(), &mut found);
    let mut problems = Vec::new();
    for page in &found {
        let links = links(&read(page));
        problems.extend(links.iter().filter_map(|target| problem(page, target)));
    }
    assert!(found.len() > 3, "the pages were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_broken_link_is_noticed() {
    let page = top().join("docs/README.md");
    let text = "See [a](b.md), [c](../Makefile) and [d](https://example.org).\n```\n[e](f)\n```\n[g](#h)";
    assert_eq!(links(text), ["b.md", "../Makefile", "#h"]);
    assert!(problem(&page, "no-such-page.md").is_some());
    assert!(problem(&page, "#no-such-heading").is_some());
    assert_eq!(problem(&page, "../Makefile"), None);
    assert_eq!(slug("What `apply` may do, and why"), "what-apply-may-do-and-why");
}

#[test]
fn the_bounds_page_states_the_defaults_of_the_code() {
    let page = read(&top().join("docs/internals/bounds.md"));
    let settings = orchestrix::Settings::default();
    let defaults = [
        ("commands_in_flight_max", settings.commands_in_flight_max as u64),
        ("mailbox_commands_max", settings.mailbox_commands_max as u64),
        ("loads_in_flight_max", settings.loads_in_flight_max as u64),
        ("load_page_events", settings.load_page_events as u64),
        ("dedup_commands_max", settings.dedup_commands_max as u64),
        ("dedup_age_max", settings.dedup_age_max.as_secs()),
        ("residency_bytes_max", settings.residency_bytes_max),
        ("residency_idle_max", settings.residency_idle_max.as_secs()),
        ("batch_events_max", settings.batch_events_max as u64),
        ("batch_bytes_max", settings.batch_bytes_max as u64),
        ("command_timeout", settings.command_timeout.as_secs()),
        ("shutdown_timeout", settings.shutdown_timeout.as_secs()),
    ];
    for (name, default) in defaults {
        let row = format!("| `{name}` | {default} |");
        assert!(page.contains(&row), "docs/internals/bounds.md lacks the row {row}");
    }
}

#[test]
fn every_test_that_the_bounds_page_names_exists() {
    let page = read(&top().join("docs/internals/bounds.md"));
    let section = page.split("## Where it is tested").nth(1).expect("the section is there");
    let named: Vec<_> = section.split('`').skip(1).step_by(2).collect();
    let mut code = String::new();
    sources(&top(), &mut code);
    assert!(named.len() > 5, "the table was found");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "there is no test {name}");
    }
}

#[test]
fn the_index_names_every_page() {
    let docs = top().join("docs");
    let (mut found, mut linked) = (Vec::new(), BTreeSet::new());
    pages(&docs, &mut found);
    for index in ["README.md", "decisions/README.md"] {
        let index = docs.join(index);
        let folder = index.parent().expect("a page lies in a folder");
        linked
            .extend(links(&read(&index)).iter().filter_map(|target| folder.join(target).canonicalize().ok()));
    }
    linked.insert(docs.join("README.md"));
    let missing: Vec<_> = found.into_iter().filter(|page| !linked.contains(page)).collect();
    assert!(missing.is_empty(), "docs/README.md does not lead to {missing:?}");
}

/// Collects the Rust code under a folder.
fn sources(folder: &Path, code: &mut String) {
    for entry in folder.read_dir().expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&read(&path));
        }
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard = read(&top().join("docker/grafana/dashboards/orchestrix.json"));
    let manual = read(&top().join("docs/operations/metrics.md"));
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let asked: BTreeSet<_> =
        dashboard.split(|c| !is_name(c)).filter(|word| word.starts_with("orchestrix_")).collect();
    assert!(asked.len() > 5, "the queries were found");
    for metric in asked {
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part));
        let name = parts.unwrap_or(metric);
        assert!(manual.contains(&format!("`{name}`")), "docs/operations/metrics.md has no {name}");
    }
}

/// Returns the words of a text that look like variables of an environment.
fn variables(text: &str) -> BTreeSet<&str> {
    let is_of_a_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_of_a_name(c));
    words.filter(|word| word.contains('_') && !word.ends_with('_') && !word.starts_with('_')).collect()
}

#[test]
fn what_an_operator_copies_sets_variables_that_exist() {
    // Of other programs, and of the example itself.
    let is_foreign =
        |name: &str| name.starts_with("POSTGRES_") || name.starts_with("GF_") || name == "POD_IP";
    let is_known = |name: &str| {
        let name = name.strip_suffix("_FILE").unwrap_or(name);
        orchestrix::config::VARIABLES.iter().any(|known| known.name == name && known.here)
    };
    for page in ["docker/compose.yaml", "docker/compose.cluster.yaml", "docs/operations/cluster.md"] {
        let text = read(&top().join(page));
        let found = variables(&text);
        assert!(found.contains("DATABASE_URL"), "the variables of {page} were found");
        let unknown: Vec<_> = found.into_iter().filter(|name| !is_foreign(name) && !is_known(name)).collect();
        assert!(unknown.is_empty(), "{page} names {unknown:?}, which are no variables");
    }
}
