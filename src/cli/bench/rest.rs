//! The REST door, by HTTP/1.1 or HTTP/2: requests that are written as they go out, answers that are read no further than
//! they have to be.

use std::{fmt::Write as _, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};

use super::{
    ask::{Ask, Done, Refusal},
    line::{Line, Target},
    plan::{Plan, durability_text},
};
use crate::cli::client::failure::innermost;

/// What the server says for a failed operation of a batch.
const FAILED_IN_BATCH: &[u8] = br#"{"error":"#;
/// How the last line of a stream begins that came to its end.
const END_OF_SCAN: &[u8] = br#"{"end":true"#;

/// Connections of one kind, shared or not.
#[derive(Clone, Debug)]
pub struct Lines {
    target: Target,
    shared: Option<Arc<Line<Full<Bytes>>>>,
    /// Behind each path of a write.
    query: &'static str,
}

/// One place's way to the server.
#[derive(Debug)]
pub struct Rest {
    lines: Lines,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Lines {
    /// Connects, where places share a connection.
    pub async fn connect(plan: &Plan, target: &Target) -> Result<Self, Refusal> {
        let shared = if plan.in_flight > 1 { Some(Line::connect(target).await?) } else { None };
        let query = match durability_text(plan.durability) {
            Some("written") => "?durability=written",
            Some(_) => "?durability=fsynced",
            None => "",
        };
        Ok(Self { target: target.clone(), shared, query })
    }

    /// A way for one place.
    pub async fn place(self) -> Result<Rest, Refusal> {
        let sender = match &self.shared {
            Some(line) => Sender::Http2(line.sender().await),
            None => Sender::Http1(self.target.http1().await?),
        };
        Ok(Rest { lines: self, sender })
    }
}

impl Rest {
    /// Connects again.
    pub async fn renew(&mut self) -> bool {
        let sender = match &self.lines.shared {
            Some(line) => line.renewed().await.map(Sender::Http2),
            None => self.lines.target.http1().await.ok().map(Sender::Http1),
        };
        sender.map(|sender| self.sender = sender).is_some()
    }

    /// Sends a request and reads its answer.
    pub async fn perform(&mut self, ask: Ask) -> Result<Done, Refusal> {
        match ask {
            Ask::Get(key) => {
                read(self.send(Method::GET, path(&[b"/v1/kv/", &key]), Bytes::new()).await?, |_| {}).await?;
                Ok(Done { keys: 1, revision: 0 })
            }
            Ask::Put(key, value) => {
                let path = path(&[b"/v1/kv/", &key, self.lines.query.as_bytes()]);
                let response = self.send(Method::PUT, path, value).await?;
                let revision =
                    response.headers().get("kv-revision").and_then(|value| value.to_str().ok()?.parse().ok());
                read(response, |_| {}).await?;
                Ok(Done { keys: 1, revision: revision.unwrap_or(0) })
            }
            Ask::BatchGet(keys) => {
                let body = batch_get_json(&keys);
                read(self.send(Method::POST, path(&[b"/v1/kv:batchGet"]), body).await?, |_| {}).await?;
                Ok(Done { keys: keys.len() as u64, revision: 0 })
            }
            Ask::BatchWrite(writes) => {
                let path = path(&[b"/v1/kv:batchWrite", self.lines.query.as_bytes()]);
                let answer = whole(self.send(Method::POST, path, batch_write_json(&writes)).await?).await?;
                refusal_in_batch(&answer).map_or(Ok(Done { keys: writes.len() as u64, revision: 0 }), Err)
            }
            Ask::Scan(first, behind) => {
                let path = path(&[b"/v1/kv?start=", &first, b"&end=", &behind]);
                let mut lines = Lined::default();
                read(self.send(Method::GET, path, Bytes::new()).await?, |chunk| lines.take(&chunk)).await?;
                lines.entries().map(|keys| Done { keys, revision: 0 })
            }
            Ask::Count(first, behind) => {
                let path = path(&[b"/v1/kv:count?start=", &first, b"&end=", &behind]);
                let answer = whole(self.send(Method::GET, path, Bytes::new()).await?).await?;
                let json: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
                let keys = json["count"].as_u64().ok_or_else(|| {
                    Refusal::unexpected(
                        "what answers there is not Tandem's REST listener (port 16700, unless configured)",
                    )
                })?;
                Ok(Done { keys, revision: 0 })
            }
        }
    }

    /// Sends a request: the head of an answer that is none of an error.
    pub async fn send(
        &mut self,
        method: Method,
        path: PathAndQuery,
        body: Bytes,
    ) -> Result<Response<Incoming>, Refusal> {
        let json = method == Method::POST;
        let stream = method == Method::GET && path.query().is_some();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                *request.uri_mut() = Uri::from(path);
                let host = HeaderValue::from_str(self.lines.target.authority().as_str());
                host.into_iter().for_each(|host| drop(request.headers_mut().insert(header::HOST, host)));
                with_types(request.headers_mut(), json, stream);
                sender.ready().await.map_err(|error| lost(&error))?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = self.lines.target.uri(path);
                with_types(request.headers_mut(), json, stream);
                sender.send_request(request).await
            }
        };
        let response = response.map_err(|error| lost(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

fn with_types(headers: &mut HeaderMap, json: bool, stream: bool) {
    if json {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if stream {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/x-ndjson, application/json"));
    }
}

/// The pieces of a path; keys of a load need no escapes.
pub fn path(pieces: &[&[u8]]) -> PathAndQuery {
    PathAndQuery::from_maybe_shared(Bytes::from(pieces.concat())).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// Takes a body, piece by piece.
pub async fn read(mut response: Response<Incoming>, mut take: impl FnMut(Bytes)) -> Result<(), Refusal> {
    while let Some(frame) = response.body_mut().frame().await {
        if let Ok(chunk) = frame.map_err(|error| lost(&error))?.into_data() {
            take(chunk);
        }
    }
    Ok(())
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Refusal> {
    response.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| lost(&error))
}

fn lost(error: &hyper::Error) -> Refusal {
    Refusal::broken(format!("the connection broke: {}", innermost(error)))
}

/// What an answer that is none of success says.
async fn refusal(response: Response<Incoming>) -> Refusal {
    let status = response.status();
    let reason = response.headers().get("kv-reason").and_then(|reason| reason.to_str().ok()).map(str::to_owned);
    let closing = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let body = whole(response).await.unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = problem["detail"].as_str().map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
    Refusal { reason: reason.unwrap_or_else(|| format!("HTTP_{}", status.as_u16())), message, broken: closing }
}

fn batch_get_json(keys: &[Bytes]) -> Bytes {
    let mut json = BytesMut::from(&br#"{"keys":["#[..]);
    for (number, key) in keys.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // Cannot fail: the buffer grows. Keys of a load are text.
        let _ = write!(json, r#"{comma}"{}""#, std::str::from_utf8(key).unwrap_or_default());
    }
    json.extend_from_slice(b"]}");
    json.freeze()
}

fn batch_write_json(writes: &[(Bytes, Bytes)]) -> Bytes {
    let size = writes.iter().map(|(key, value)| key.len() + value.len() + 32).sum::<usize>();
    let mut json = BytesMut::with_capacity(size + 16);
    json.extend_from_slice(br#"{"writes":["#);
    for (number, (key, value)) in writes.iter().enumerate() {
        let before: &[u8] = if number == 0 { br#"{"put":{"key":""# } else { br#",{"put":{"key":""# };
        for piece in [before, key, br#"","value":""#, value, br#""}}"#] {
            json.extend_from_slice(piece);
        }
    }
    json.extend_from_slice(b"]}");
    json.freeze()
}

/// The first operation of a batch that failed; answers to puts hold nothing that anyone wrote.
fn refusal_in_batch(answer: &[u8]) -> Option<Refusal> {
    if !answer.windows(FAILED_IN_BATCH.len()).any(|window| window == FAILED_IN_BATCH) {
        return None;
    }
    let json: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let error = json["results"].as_array()?.iter().find_map(|result| result.get("error"))?;
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    Some(Refusal { reason: text("reason"), message: text("message"), broken: false })
}

/// Lines of a stream, counted as they come in pieces.
#[derive(Debug, Default)]
struct Lined {
    ended: u64,
    /// How the line that has not ended begins, as far as that matters.
    begun: Vec<u8>,
    last_is_end: bool,
}

impl Lined {
    fn take(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.begin(&rest[..end]);
            self.last_is_end = self.begun.starts_with(END_OF_SCAN);
            self.begun.clear();
            self.ended += 1;
            rest = &rest[end + 1..];
        }
        self.begin(rest);
    }

    fn begin(&mut self, more: &[u8]) {
        let room = END_OF_SCAN.len().saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&more[..more.len().min(room)]);
    }

    /// How many lines were entries, if the last one says that these are all.
    fn entries(&self) -> Result<u64, Refusal> {
        match self.last_is_end {
            true => Ok(self.ended - 1),
            false => Err(Refusal::unexpected("the scan has no end mark: it broke off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_however_they_are_cut() {
        let stream = b"{\"key\":\"a\"}\n{\"key\":\"b\"}\n{\"end\":true,\"store_revision\":7}\n";
        for cut in 0..stream.len() {
            let mut lines = Lined::default();
            lines.take(&stream[..cut]);
            assert!(lines.entries().is_err());
            lines.take(&stream[cut..]);
            assert_eq!(lines.entries().unwrap(), 2);
        }
    }

    #[test]
    fn a_failed_operation_of_a_batch_is_seen() {
        assert!(refusal_in_batch(br#"{"revision":3,"results":[{"put":{"created":true,"version":1}}]}"#).is_none());
        let failed = br#"{"revision":3,"results":[{"put":{}},{"error":{"reason":"MEMORY_LIMIT","message":"full"}}]}"#;
        assert_eq!(refusal_in_batch(failed).unwrap().reason, "MEMORY_LIMIT");
    }

    #[test]
    fn batches_are_json() {
        let (key, value) = (Bytes::from("bench/1"), Bytes::from("x-_9"));
        let writes = batch_write_json(&[(key.clone(), value.clone()), (key.clone(), value)]);
        let writes: serde_json::Value = serde_json::from_slice(&writes).unwrap();
        assert_eq!(writes["writes"][1]["put"]["value"], "x-_9");
        let keys: serde_json::Value = serde_json::from_slice(&batch_get_json(&[key.clone(), key])).unwrap();
        assert_eq!(keys["keys"][1], "bench/1");
    }
}
