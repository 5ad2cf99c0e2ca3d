//! The API's document and a page to read it with and to try the API on; the page needs no other host.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
};
use utoipa_swagger_ui::Config;

use super::{
    handlers::answer,
    openapi, problem,
    query::Query,
    routes::{self, Route},
};
use crate::error::{Error, Reason, Result};

/// The browser fetches nothing from elsewhere, whatever the page's code says. Its styles are partly made by its code.
const FROM_HERE_ALONE: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Made once, when it is first asked for.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().into());

/// Seen from the page, so that both may stand under another path behind a proxy. No validator, which is another host.
static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../openapi.json").validator_url("none").deep_linking(true).try_it_out_enabled(true);
    Arc::new(config.display_request_duration(true).query_config_enabled(false))
});

/// This document
///
/// OpenAPI 3.1, made from the server's code.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Documentation",
    responses(openapi::answers::DocumentAnswers)
)]
pub async fn document(request: Request) -> Response {
    read(&request, &routes::DOCUMENT, || {
        let headers = fixed([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")]);
        Ok(answer(StatusCode::OK, headers, DOCUMENT.clone()))
    })
}

/// The way to the page
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "Documentation",
    responses(openapi::answers::DocsAnswers)
)]
pub async fn redirect(request: Request) -> Response {
    read(&request, &routes::DOCS, || {
        Ok(answer(StatusCode::PERMANENT_REDIRECT, fixed([(LOCATION, "docs/")]), Bytes::new()))
    })
}

/// A page to read this document with and to try the API on
///
/// The page itself is at `/docs/`; `file` names a file of it. It works without a network.
#[utoipa::path(
    get, path = "/docs/{file}", operation_id = "docsFile", tag = "Documentation",
    params(("file" = String, Path, description = "The file's name.", example = "index.html")),
    responses(openapi::answers::DocsFileAnswers),
)]
pub async fn file(request: Request) -> Response {
    let name = request.uri().path().strip_prefix("/docs/").unwrap_or_default();
    read(&request, &routes::DOCS_FILE, || show_file(name))
}

fn show_file(name: &str) -> Result<Response> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&PAGE));
    let found = found.map_err(|_| Error::internal("a fault of the server: the page has no configuration"))?;
    let Some(file) = found else {
        return Err(Error::new(Reason::RouteNotFound, "the page has no such file: begin at /docs/"));
    };
    let mut headers = fixed([
        (CACHE_CONTROL, "max-age=3600"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, FROM_HERE_ALONE),
    ]);
    headers.extend(HeaderValue::try_from(file.content_type).map(|content_type| (CONTENT_TYPE, content_type)));
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(answer(StatusCode::OK, headers, bytes))
}

/// A plain read, without parameters.
fn read(request: &Request, route: &'static Route, show: impl FnOnce() -> Result<Response>) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return problem::method_not_allowed(route);
    }
    let shown = Query::parse(request.uri().query(), &[]).and_then(|_| show());
    shown.unwrap_or_else(|error| problem::to_response(&error))
}

fn fixed<const N: usize>(headers: [(HeaderName, &'static str); N]) -> HeaderMap {
    headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}
