//! The document that describes the service, held against the service itself.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::http::problem::Kind;
use crate::support::{Answer, TestBank};

/// The routes of the contract.
const ROUTES: [(&str, &str); 13] = [
    ("get", "/accounts/{id}"),
    ("get", "/accounts/{id}/events"),
    ("get", "/health"),
    ("get", "/live"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/ready"),
    ("get", "/transfers/{id}"),
    ("post", "/accounts"),
    ("post", "/accounts/{id}/close"),
    ("post", "/accounts/{id}/deposit"),
    ("post", "/accounts/{id}/withdraw"),
    ("post", "/transfers"),
];

#[tokio::test]
async fn the_document_lists_exactly_the_routes_of_the_contract() {
    let document = TestBank::start().await.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let paths = document["paths"].as_object().expect("paths");
    let listed: BTreeSet<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().expect("methods").keys().map(|method| (&**method, &**path)))
        .collect();
    assert_eq!(listed, ROUTES.into_iter().collect());
}

#[tokio::test]
async fn every_listed_route_is_served_and_no_other_method_of_its_path() {
    let bank = TestBank::start().await;
    for (_, path) in ROUTES {
        let allowed: Vec<&str> =
            ROUTES.iter().filter(|(_, other)| *other == path).map(|(method, _)| *method).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let uri = path.replace("{id}", "x");
            let request = Request::builder().method(method.clone()).uri(uri).body(Body::empty());
            let status = bank.call(request.expect("a request")).await.status;
            let is_listed = allowed.contains(&&*method.as_str().to_lowercase());
            assert_eq!(status != 405, is_listed, "{method} {path} is {status}");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    let document = TestBank::start().await.get("/openapi.json").await.json();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50, "only {} references", references.len());
    for reference in references {
        let place = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_kind_of_problem_is_documented() {
    let document = TestBank::start().await.get("/openapi.json").await.json();
    let (paths, all) = (document["paths"].to_string(), document["info"]["description"].to_string());
    // What the router answers before a route is chosen belongs to no route.
    let general = [Kind::UnknownPath, Kind::MethodNotAllowed];
    for kind in Kind::ALL {
        let slug = format!("`{}`", kind.row().0);
        assert!(all.contains(&slug), "{slug} is not in the table");
        assert!(general.contains(&kind) || paths.contains(&slug), "{slug} is at no route");
    }
}

#[tokio::test]
async fn answers_are_what_the_document_promises() {
    let bank = TestBank::start().await;
    let document = bank.get("/openapi.json").await.json();
    let check = |method: &str, path: &str, answer: &Answer| {
        let status = answer.status.as_str();
        let response = &document["paths"][path][method]["responses"][status];
        let content = response["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("{method} {path} does not document {status}"));
        let sent = answer.header("content-type").expect("a content type").split(';').next().expect("a type");
        let schema = &content.get(sent).unwrap_or_else(|| panic!("{method} {path} sends {sent}"))["schema"];
        if sent.ends_with("json") {
            conforms(&document, schema, &answer.json(), &format!("{method} {path} {status}"));
        }
    };
    let account = json!({ "account_id": "a", "owner": "Ada", "currency": "EUR" });
    check("post", "/accounts", &bank.post("/accounts", account.clone()).await);
    check("post", "/accounts", &bank.post("/accounts", account).await);
    bank.open("b", 0).await;
    let deposit = "/accounts/{id}/deposit";
    check("post", deposit, &bank.deposit("a", 9).await);
    check("post", deposit, &bank.post("/accounts/a/deposit", json!({ "amount": 0 })).await);
    check("post", deposit, &bank.post("/accounts/x/deposit", json!({ "amount": 1 })).await);
    check("post", deposit, &bank.post_text("/accounts/x/deposit", &"x".repeat(70_000)).await);
    let withdraw = "/accounts/{id}/withdraw";
    check("post", withdraw, &bank.post("/accounts/a/withdraw", json!({ "amount": 1 })).await);
    check("post", withdraw, &bank.post("/accounts/a/withdraw", json!({ "amount": 99 })).await);
    check("get", "/accounts/{id}", &bank.get("/accounts/a").await);
    check("get", "/accounts/{id}", &bank.get("/accounts/x").await);
    check("get", "/accounts/{id}", &bank.get("/accounts/a?at_version=99").await);
    check("get", "/accounts/{id}/events", &bank.get("/accounts/a/events").await);
    let order = json!({ "transfer_id": "t", "from": "a", "to": "b", "amount": 1 });
    check("post", "/transfers", &bank.post("/transfers", order.clone()).await);
    check("post", "/transfers", &bank.post("/transfers", order).await);
    check("get", "/transfers/{id}", &bank.get("/transfers/t").await);
    check("get", "/transfers/{id}", &bank.get("/transfers/x").await);
    check("post", "/accounts/{id}/close", &bank.post_text("/accounts/b/close", "").await);
    for path in ["/health", "/live", "/ready", "/openapi.json"] {
        check("get", path, &bank.get(path).await);
    }
}

/// Holds a value against the parts of JSON Schema that the document uses: references, types, required and known fields.
fn conforms(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).expect("checked elsewhere");
        return conforms(document, target, value, place);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fits = options.iter().any(|option| has_type(document, option, value));
        assert!(fits, "{place}: {value} fits none of {options:?}");
        return;
    }
    assert!(has_type(document, schema, value), "{place}: {value} is no {}", schema["type"]);
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{place}: {value} is none of {words:?}");
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                fields.contains_key(required.as_str().expect("a name")),
                "{place}: {required} is missing"
            );
        }
        for (name, field) in fields {
            let property =
                properties.get(name).unwrap_or_else(|| panic!("{place}: {name} is not documented"));
            conforms(document, property, field, &format!("{place}.{name}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(document, &schema["items"], item, &format!("{place}[{index}]"));
    }
}

fn has_type(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return has_type(document, document.pointer(&reference[1..]).unwrap_or(&Value::Null), value);
    }
    let is = |name: &Value| match name.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("null") => value.is_null(),
        _ => false,
    };
    match &schema["type"] {
        Value::Array(names) => names.iter().any(is),
        Value::Null => true,
        name => is(name),
    }
}
