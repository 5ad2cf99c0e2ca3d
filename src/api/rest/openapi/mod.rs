//! The API's document, OpenAPI 3.1: made from the attributes and doc comments of the handlers, the types of the bodies,
//! the lists of parameters that the parser takes and the table of reasons.

pub mod answers;
pub mod headers;
pub mod key;
pub mod shapes;

use utoipa::{
    IntoParams as _, Modify, OpenApi,
    openapi::{
        RefOr, Schema,
        path::Operation,
        schema::{AdditionalProperties, AllOfBuilder, Object, ObjectBuilder, OneOfBuilder, SchemaType, Type},
    },
};

use self::headers::EveryRequest;
use super::{collection, docs, handlers, many, problem, range, routes::ROUTES, scan_lines, watch};

/// Tandem over HTTP.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tandem",
        description = include_str!("introduction.md"),
    ),
    paths(
        handlers::get,
        handlers::put,
        handlers::touch,
        handlers::delete,
        handlers::increment,
        collection::list,
        range::delete,
        watch::begin,
        collection::count_range,
        collection::read_batch,
        many::write_batch,
        many::write_txn,
        docs::document,
        docs::redirect,
        docs::file,
    ),
    components(schemas(
        problem::Problem<'_>,
        collection::PageJson<'_>,
        collection::CountJson,
        collection::BatchJson<'_>,
        many::BatchWriteJson<'_>,
        many::TxnJson<'_>,
        range::DeletedJson,
        scan_lines::ScanLineJson<'_>,
        watch::WatchJson<'_>,
    )),
    tags(
        (name = "Keys", description = "One key: its value, its expiry, its end."),
        (name = "Counters", description = "Signed 64-bit numbers, in the same key space."),
        (name = "Many keys", description = "Ranges, batches, transactions and watches."),
        (name = "Documentation", description = "This document, and a page to read it with."),
    ),
    modifiers(&Everywhere, &Heads, &Exact),
)]
struct Api;

/// The document as JSON.
pub fn document() -> Vec<u8> {
    // Strings, numbers and lists of them always serialise.
    serde_json::to_vec(&Api::openapi()).unwrap_or_default()
}

/// What every request may carry.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch];
            for operation in operations.into_iter().flatten() {
                let described = EveryRequest::into_params(|| None).into_iter().map(RefOr::T);
                operation.parameters.get_or_insert_default().extend(described);
            }
        }
    }
}

/// HEAD answers as GET does, without a body.
struct Heads;

impl Modify for Heads {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for route in ROUTES.into_iter().filter(|route| route.allow.contains("HEAD")) {
            if let Some(path) = document.paths.paths.get_mut(route.template) {
                path.head = path.get.clone().map(head_of);
            }
        }
    }
}

fn head_of(mut get: Operation) -> Operation {
    get.operation_id = get.operation_id.map(|id| format!("{id}Head"));
    get.summary = get.summary.map(|summary| format!("{summary}: the headers alone"));
    for response in get.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    get
}

/// Says of the bodies what types alone cannot.
struct Exact;

impl Modify for Exact {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let Some(components) = &mut document.components else { return };
        for schema in components.schemas.values_mut() {
            if let RefOr::T(schema) = schema {
                name_one_variant(schema);
                want_one_of_each_pair(schema);
            }
        }
    }
}

/// An enum's JSON names one variant, and has no other field.
fn name_one_variant(schema: &mut Schema) {
    let Schema::OneOf(variants) = schema else { return };
    for variant in &mut variants.items {
        if let RefOr::T(Schema::Object(variant)) = variant
            && !variant.properties.is_empty()
        {
            variant.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// Bytes in a request stand there once: as text or as base64. (Answers may leave a value out.)
fn want_one_of_each_pair(schema: &mut Schema) {
    let Schema::Object(body) = schema else { return };
    let is_base64 = |name: &&String| name.ends_with("_base64");
    let pairs: Vec<_> = body.properties.keys().filter(is_base64).cloned().collect();
    if body.additional_properties.is_none() || pairs.is_empty() {
        return;
    }
    let mut body = std::mem::take(body);
    let whole = AllOfBuilder::new().description(body.description.take()).examples(std::mem::take(&mut body.examples));
    let pairs = pairs.into_iter().map(|base64| {
        let text = base64.trim_end_matches("_base64").to_owned();
        Schema::OneOf(OneOfBuilder::new().item(wanting(text)).item(wanting(base64)).build())
    });
    let pairs: Vec<_> = pairs.collect();
    *schema = Schema::AllOf(pairs.into_iter().fold(whole.item(body), AllOfBuilder::item).build());
}

/// An object that has this field, and not as `null`.
fn wanting(name: String) -> Object {
    let there = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Array]));
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).property(&name, there).required(name).build()
}
