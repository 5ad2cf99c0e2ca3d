//! The protocols of the gRPC port, told apart by content type: gRPC over HTTP/2, and gRPC-Web, which browsers speak, over
//! any HTTP. Whoever speaks neither gets a plain answer that says so.

use http::{
    HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{ACCEPT, CONTENT_TYPE},
};
use tonic::{Status, body::Body};

use super::status::to_status;
use crate::error::{Error, Reason};

const KV_REASON: HeaderName = HeaderName::from_static("kv-reason");

/// How a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// gRPC over HTTP/2.
    Native,
    /// gRPC-Web: trailers are the last frame of the body.
    Web,
    /// gRPC-Web, all in base64.
    WebText,
}

impl Dialect {
    /// What the headers say; MEDIA_TYPE_UNSUPPORTED for anything else.
    pub fn of<B>(request: &Request<B>) -> Result<Self, Error> {
        let refused = |text: &'static str| Err(Error::new(Reason::MediaTypeUnsupported, text));
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let dialect = match essence {
            "application/grpc" | "application/grpc+proto" => Self::Native,
            "application/grpc-web" | "application/grpc-web+proto" => Self::Web,
            "application/grpc-web-text" | "application/grpc-web-text+proto" => Self::WebText,
            _ => {
                return refused(
                    "this port speaks gRPC (HTTP/2, application/grpc) and gRPC-Web (application/grpc-web+proto), with \
                     protobuf messages by POST; REST is on another port, 16700 by default",
                );
            }
        };
        if request.method() != Method::POST {
            return refused("a gRPC call is a POST");
        }
        if dialect == Self::Native && request.version() != Version::HTTP_2 {
            return refused("gRPC needs HTTP/2: over HTTP/1.1 send gRPC-Web (application/grpc-web+proto)");
        }
        Ok(dialect)
    }

    /// Headers as gRPC-Web's translator wants them: a bare type, and an answer in the encoding of the question.
    pub fn normalise<B>(self, request: &mut Request<B>) {
        let content_type = HeaderValue::from_static(self.content_type());
        request.headers_mut().insert(ACCEPT, content_type.clone());
        request.headers_mut().insert(CONTENT_TYPE, content_type);
    }

    /// The answer of a refusal: its status in the headers, since there is no message before it.
    pub fn refusal(self, status: Status) -> Response<Body> {
        let mut response: Response<Body> = status.into_http();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        response
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Native => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text+proto",
        }
    }
}

/// The answer to whoever does not speak gRPC: an HTTP status and a problem in JSON. What gRPC would say stands in the
/// headers, for a client that only sent a wrong type.
pub fn plain_refusal(error: Error) -> Response<Body> {
    let (status, reason) = (error.reason.http_status(), error.reason.name());
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "reason": reason,
        "detail": error.message,
    });
    let mut response = to_status(error).into_http::<Body>().map(|_| Body::new(problem.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(KV_REASON, HeaderValue::from_static(reason));
    response
}
