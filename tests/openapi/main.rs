//! The API's document is what the server does: routes, methods, parameters, statuses, headers and examples.
//!
//! That every answer is as described, in status, headers, media type and JSON, `support::described` holds for this suite
//! and all others; here stands that nothing is described which is not so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod page;
mod provoked;

use std::collections::BTreeSet;

use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use support::{
    Answer, Client, Server,
    described::{self, DOCUMENT, check_json},
    send,
};
use tandem::api::rest::ROUTES;

/// An operation of the document.
pub struct Operation {
    pub id: &'static str,
    pub method: String,
    pub path: &'static str,
    pub json: &'static Value,
}

/// All operations.
pub fn operations() -> Vec<Operation> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let of = |(path, item): (&'static String, &'static Value)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, json)| Operation {
            id: json["operationId"].as_str().unwrap(),
            method: method.to_uppercase(),
            path,
            json,
        })
    };
    paths.iter().flat_map(of).collect()
}

pub fn operation(id: &str) -> Operation {
    operations().into_iter().find(|operation| operation.id == id).unwrap_or_else(|| panic!("no operation {id}"))
}

impl Operation {
    pub fn parameters(&self, place: &str) -> Vec<&'static Value> {
        let all = self.json["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == place).collect()
    }
}

/// Sends a request to an operation, and reads the answer; of a stream without end its beginning.
pub async fn ask(client: &Client, operation: &Operation, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers = [headers, &[("kv-timing", "1")]].concat();
    if operation.id != "watch" {
        return send(client, &operation.method, url, &headers, body).await;
    }
    let mut request = http::Request::builder().method(operation.method.as_str()).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let answer = Answer { status, headers, body: frame.into_data().unwrap() };
    described::check(&operation.method, url, &answer);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_the_document() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let answer = send(&support::client(), "GET", &server.url("/openapi.json"), &[], b"").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), *DOCUMENT);
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1."), "{}", DOCUMENT["openapi"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_methods_are_those_of_the_router() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let described: BTreeSet<_> = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, ROUTES.iter().map(|route| route.template).collect());
    for path in described {
        let of_path = operations().into_iter().filter(|operation| operation.path == path);
        let methods: BTreeSet<_> = of_path.map(|operation| operation.method).collect();
        // Any other method is told which there are.
        let path = path.replace("{key}", "a").replace("{file}", "a");
        let refused = send(&support::client(), "BREW", &server.url(&path), &[], b"").await;
        let allowed = refused.header("allow").unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!((refused.status, methods), (405, allowed), "{path}");
    }
}

#[test]
fn every_operation_is_named_and_explained() {
    let ids: BTreeSet<_> = operations().iter().map(|operation| operation.id).collect();
    assert_eq!(ids.len(), operations().len(), "an operation's id is its own");
    for operation in operations() {
        assert!(operation.json["summary"].as_str().is_some_and(|text| text.len() > 5), "{}", operation.id);
        for parameter in operation.json["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{} {}", operation.id, parameter["name"]);
        }
    }
}

/// A request that is answered well, for each operation.
pub fn good_requests() -> Vec<(Operation, cases::Case)> {
    let cases = cases::cases();
    let good = |operation: Operation| {
        let case = cases.iter().find(|case| case.operation == operation.id).cloned();
        let case = case.unwrap_or_else(|| panic!("no case shows what {} is good for", operation.id));
        assert!(case.status < 400, "{}", operation.id);
        (operation, case)
    };
    operations().into_iter().map(good).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn described_parameters_are_taken_and_no_others() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = support::client();
    for (operation, case) in good_requests() {
        for parameter in operation.parameters("query") {
            let name = parameter["name"].as_str().unwrap();
            let (path, _) = case.path.split_once('?').unwrap_or((&case.path, ""));
            // The page's token is another's answer: the pages' own suites follow it.
            let Some(example) = parameter["schema"]["examples"].get(0) else { continue };
            let example = example.as_str().map_or(example.to_string(), str::to_owned);
            // What the operation cannot do without.
            let needed = match (operation.id.trim_end_matches("Head"), name) {
                ("touch", name) if !["ttl", "expire_time", "keep_ttl"].contains(&name) => "&ttl=1h",
                ("list" | "count" | "watch" | "deleteRange", name)
                    if !["prefix", "start", "end", "key", "all"].contains(&name) =>
                {
                    "&all"
                }
                _ => "",
            };
            prepare(&client, &server).await;
            let query = format!("{name}={}{needed}", support::escape(example.as_bytes()));
            let answer = ask(&client, &operation, &server.url(&format!("{path}?{query}")), &[], &case.body).await;
            // The condition is understood, and does not hold.
            let refused = if name == "if_version" { 412 } else { 0 };
            assert!(answer.status < 300 || answer.status == refused, "{} {query}: {answer:?}", operation.id);
        }
        let url = server.url(&format!("{}?nonsense=1", case.path.split('?').next().unwrap()));
        let answer = ask(&client, &operation, &url, &case.headers, &case.body).await;
        assert_eq!((answer.status, answer.header("kv-reason")), (400, Some("INVALID_FIELD")), "{}", operation.id);
    }
}

/// The keys that the good requests speak of.
async fn prepare(client: &Client, server: &Server) {
    for key in ["greeting", "gone"] {
        assert!(send(client, "PUT", &server.url(&format!("/v1/kv/{key}")), &[], b"hello").await.status < 300);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_get_their_described_answers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = support::client();
    let media_example = |content: &Value| match content["schema"]["$ref"].as_str() {
        None => content["example"].clone(),
        Some(name) => DOCUMENT["components"]["schemas"][name.rsplit('/').next().unwrap()]["examples"][0].clone(),
    };
    let mut shown = 0;
    // As one reads it: written first, then read.
    for (id, query) in [
        ("put", "?ttl=60s"),
        ("get", ""),
        ("batchWrite", ""),
        ("batchGet", ""),
        ("list", "?prefix=user/"),
        ("count", "?prefix=user/"),
        ("txn", ""),
        ("increment", ""),
        ("touch", "?ttl=60s"),
        ("delete", ""),
        ("deleteRange", "?prefix=user/"),
    ] {
        let operation = operation(id);
        let mut path = operation.path.to_owned();
        for parameter in operation.parameters("path") {
            let example = match id {
                "increment" => "visits",
                _ => parameter["example"].as_str().unwrap(),
            };
            path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), example);
        }
        let content = operation.json["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
        let body = content.map(|(_, content)| media_example(content));
        let body = match &body {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(json) => json.to_string(),
        };
        let headers: Vec<_> =
            content.map(|(media_type, _)| ("content-type", media_type.as_str())).into_iter().collect();
        let url = server.url(&format!("{path}{query}"));
        let answer = send(&client, &operation.method, &url, &headers, body.as_bytes()).await;
        assert!(answer.status < 300, "{id}: {answer:?}");
        for (_, content) in
            operation.json["responses"][answer.status.to_string()]["content"].as_object().into_iter().flatten()
        {
            let example = media_example(content);
            if example.is_object() {
                assert_eq!(normal(&answer.json()), normal(&example), "{id}");
                shown += 1;
            }
        }
    }
    assert!(shown >= 5, "{shown}");
    let entry = send(&client, "PUT", &server.url("/v1/kv/greeting"), &[("content-type", "text/plain")], b"hello").await;
    assert_eq!(entry.status, 201);
    let entry = send(&client, "GET", &server.url("/v1/kv/greeting?format=json"), &[], b"").await;
    assert_eq!(normal(&entry.json()), normal(&DOCUMENT["components"]["schemas"]["Entry"]["examples"][0]));
}

/// Without what differs from server to server.
fn normal(json: &Value) -> Value {
    match json {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| match name.as_str() {
                name if name.ends_with("revision") => (name.to_owned(), json!(1)),
                name if name.ends_with("_time") => (name.to_owned(), json!("then")),
                name => (name.to_owned(), normal(value)),
            };
            fields.iter().map(field).collect()
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

#[test]
fn examples_of_schemas_are_as_their_schemas_say() {
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            check_json(schema, example, name);
        }
    }
    for operation in operations() {
        for parameter in operation.json["parameters"].as_array().into_iter().flatten() {
            for example in
                parameter["schema"]["examples"].as_array().into_iter().flatten().chain(parameter.get("example"))
            {
                check_json(&parameter["schema"], example, parameter["name"].as_str().unwrap());
            }
        }
    }
}
