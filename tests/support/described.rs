//! Holds what the REST door answers to the API's document: every answer that a suite gets passes here.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use serde_json::{Value, json};
use tandem::api::rest::{ROUTES, Route, openapi};

use super::Answer;

/// The document, read once.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_slice(&openapi::document()).unwrap());

/// What stands in answers of every server, and is described by HTTP itself.
const OF_HTTP: [&str; 7] =
    ["content-type", "content-length", "content-encoding", "date", "connection", "transfer-encoding", "vary"];
/// What browsers ask for of pages of other origins: switched by configuration, and the same on every answer.
const OF_SHARING: &str = "access-control-";

/// The operation that a request is of, if it is described.
pub fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let route = Route::among(&ROUTES, path)?;
    DOCUMENT["paths"][route.template].get(method.to_ascii_lowercase())
}

/// Panics if an answer is not as the document says.
pub fn check(method: &str, url: &str, answer: &Answer) {
    let path = url.split("://").last().unwrap().split_once('/').map_or("/", |(_, path)| path);
    let path = format!("/{}", path.split('?').next().unwrap());
    let Some(operation) = operation(method, &path) else { return };
    let what = format!("{method} {path} answers {}", answer.status);
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{what}, which is not described");
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    for name in names.filter(|name| !OF_HTTP.contains(name) && !name.starts_with(OF_SHARING)) {
        let described = response["headers"].as_object().unwrap().keys().any(|known| known.eq_ignore_ascii_case(name));
        assert!(described, "{what} with {name}, which is not described");
    }
    let Some(contents) = response["content"].as_object() else {
        assert!(answer.body.is_empty(), "{what} with a body, which is not described");
        return;
    };
    // A value is somebody's bytes, whatever its type says; the sandbox that goes with it tells it.
    let is_value = answer.header("content-security-policy").is_some();
    if answer.body.is_empty() || is_value || answer.header("content-encoding").is_some() {
        return;
    }
    let media_type = answer.header("content-type").unwrap_or_default();
    let content = contents.get(media_type).or(contents.get("*/*"));
    let content = content.unwrap_or_else(|| panic!("{what} with {media_type:?}, which is not described"));
    let Some(schema) = content.get("schema") else { return };
    match media_type {
        "application/x-ndjson" => {
            let lines = answer.text();
            lines.lines().for_each(|line| check_json(schema, &serde_json::from_str(line).unwrap(), &what));
        }
        json if json.ends_with("json") => check_json(schema, &answer.json(), &what),
        _ => {}
    }
}

/// Panics if JSON is not as its schema says; a field that the schema does not name is none.
pub fn check_json(schema: &Value, json: &Value, what: &str) {
    static COMPILED: Mutex<BTreeMap<String, jsonschema::Validator>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap();
    let validator = compiled.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        whole["components"]["schemas"].as_object_mut().unwrap().values_mut().for_each(close);
        jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap()
    });
    let errors: Vec<_> = validator.iter_errors(json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what} with {json}: {errors:?}");
}

/// Answers may get more fields one day; today they have those that are described.
fn close(schema: &mut Value) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema["additionalProperties"] = json!(false);
    }
}
