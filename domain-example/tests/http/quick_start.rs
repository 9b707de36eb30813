//! The sessions in the documents, held against the service: each request as printed, each answer as printed.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use crate::support::{Answer, TestBank, eventually};

/// A request and the answer that a reader is promised.
#[derive(Debug, PartialEq)]
struct Exchange {
    curl: String,
    answer: String,
}

#[tokio::test]
async fn the_quick_start_works_as_printed() {
    let page = include_str!("../../../docs/guide/quick-start.md");
    assert!(run(page).await >= 15, "the page has lost its requests");
}

#[tokio::test]
async fn the_session_of_the_readme_works_as_printed() {
    run(include_str!("../../../README.md")).await;
}

/// Runs the session of a page against a bank of its own; returns how many requests it has.
async fn run(page: &str) -> usize {
    let bank = TestBank::start().await;
    let exchanges = exchanges(page);
    for Exchange { curl, answer } in &exchanges {
        let wanted: Value =
            serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error} in {answer}"));
        let seen = send(&bank, curl).await;
        // A reader looks at a transfer when it has ended; a test is faster than that.
        let is_early = seen.json()["status"] == "pending" && wanted["status"] != "pending";
        let seen = if is_early { once_ended(&bank, curl).await } else { seen };
        assert!(
            matches(&wanted, &seen.json()),
            "{curl}\nis answered by\n{}\nand not by\n{wanted}",
            seen.json()
        );
    }
    exchanges.len()
}

async fn once_ended(bank: &TestBank, curl: &str) -> Answer {
    eventually("the end of the transfer", || async {
        let answer = send(bank, curl).await;
        (answer.json()["status"] != "pending").then_some(answer)
    })
    .await
}

/// Returns the exchanges of all blocks of a page that are a `console`.
fn exchanges(page: &str) -> Vec<Exchange> {
    let mut found: Vec<Exchange> = Vec::new();
    let mut is_session = false;
    for line in page.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => is_session = line == "```console",
            Some(curl) if is_session => found.push(Exchange { curl: curl.to_owned(), answer: String::new() }),
            None if is_session => found.last_mut().expect("a request comes first").answer.push_str(line),
            _ => {}
        }
    }
    found
}

/// Sends what curl would send.
async fn send(bank: &TestBank, curl: &str) -> Answer {
    let mut words = words(curl).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"));
    let (mut request, mut url, mut body) = (Request::builder(), None, None);
    while let Some(word) = words.next() {
        match &*word {
            "-s" => {}
            "-H" => {
                let header = words.next().expect("a header");
                let (name, value) = header.split_once(": ").expect("a name and a value");
                request = request.header(name, value);
            }
            "-d" => body = words.next(),
            option if option.starts_with('-') => panic!("{option} is not known here"),
            _ => url = Some(word),
        }
    }
    let url = url.expect("an address");
    let path = url.strip_prefix("localhost:8000").expect("the bank's own address");
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = request.method(method).uri(path).body(body.map_or_else(Body::empty, Body::from));
    bank.call(request.expect("a request")).await
}

/// Splits a line as a shell does that knows single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Compares, with `"..."` for anything.
fn matches(wanted: &Value, seen: &Value) -> bool {
    match (wanted, seen) {
        (Value::String(any), _) if any == "..." => true,
        (Value::Object(wanted), Value::Object(seen)) => {
            wanted.len() == seen.len()
                && wanted.iter().all(|(name, value)| seen.get(name).is_some_and(|seen| matches(value, seen)))
        }
        (Value::Array(wanted), Value::Array(seen)) => {
            wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(wanted, seen)| matches(wanted, seen))
        }
        _ => wanted == seen,
    }
}

#[test]
fn a_line_is_split_as_a_shell_splits_it() {
    assert_eq!(words("curl -s 'a b' -d '{\"x\": 1}' c"), ["curl", "-s", "a b", "-d", "{\"x\": 1}", "c"]);
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    let wanted = serde_json::json!({ "id": "...", "list": [1, "..."] });
    assert!(matches(&wanted, &serde_json::json!({ "id": 7, "list": [1, {}] })));
    assert!(!matches(&wanted, &serde_json::json!({ "id": 7, "list": [2, {}] })));
    assert!(!matches(&wanted, &serde_json::json!({ "id": 7, "list": [1, {}], "more": 1 })));
}
