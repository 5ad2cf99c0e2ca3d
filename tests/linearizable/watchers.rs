//! Watchers of every kind that run beside the clients, resume by themselves where they are broken off, and keep what they
//! were told.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tandem::pb::{self, key_range::Kind, kv_service_client::KvServiceClient};
use tokio::sync::watch;

use super::{
    checker::Watched,
    timeline::{Group, key_of},
};
use crate::{doors::json::message_from_json, support};

/// A server that runs answers a watcher at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where the server listens now.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub http: String,
    pub grpc: String,
}

/// How a watcher hears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Over {
    Grpc,
    Ndjson,
    EventStream,
}

/// Where a watcher begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    Revision(u64),
    Now,
    State,
}

/// A watcher.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub over: Over,
    pub from: From,
    pub prefix: &'static str,
    /// Hangs up and resumes after so many messages.
    pub hangs_up_after: usize,
}

/// A message, and where to resume after it: of server-sent events their id.
struct Message {
    message: pb::WatchResponse,
    resume: Option<u64>,
}

enum Stream {
    Grpc(tonic::Streaming<pb::WatchResponse>),
    Lines { body: hyper::body::Incoming, text: Vec<u8>, over: Over },
}

impl Stream {
    /// The next message; `None` where the stream is broken off.
    async fn next(&mut self) -> Option<Message> {
        let (body, text, over) = match self {
            Self::Grpc(stream) => return stream.message().await.ok()?.map(whole),
            Self::Lines { body, text, over } => (body, text, *over),
        };
        let end: &[u8] = if over == Over::Ndjson { b"\n" } else { b"\n\n" };
        loop {
            if let Some(at) = text.windows(end.len()).position(|part| part == end) {
                let block: Vec<_> = text.drain(..at + end.len()).collect();
                let block = std::str::from_utf8(&block).unwrap().trim_end();
                return if over == Over::Ndjson { line(block) } else { server_sent(block) };
            }
            text.extend_from_slice(&body.frame().await?.ok()?.into_data().ok()?);
        }
    }
}

fn whole(message: pb::WatchResponse) -> Message {
    let resume = (!message.partial && !message.reset).then_some(message.revision);
    Message { message, resume }
}

/// A line; `None` for the last words of a stream that failed.
fn line(text: &str) -> Option<Message> {
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    json.get("error").is_none().then(|| whole(message_from_json(&json)))
}

/// An event, as a browser reads it.
fn server_sent(text: &str) -> Option<Message> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let resume = field("id").map(|id| id.parse().unwrap());
    if field("event") == Some("problem") {
        return None;
    }
    let message = match field("data") {
        Some(data) => message_from_json(&serde_json::from_str(data).unwrap()),
        // Without data it only moves the resume point.
        None => pb::WatchResponse { revision: resume.unwrap(), ..Default::default() },
    };
    let named = match (message.synced, message.reset) {
        (true, _) => Some("synced"),
        (_, true) => Some("reset"),
        _ => None,
    };
    assert_eq!(field("event"), named, "{text}");
    assert_eq!(resume, whole(message.clone()).resume, "{text}");
    Some(Message { message, resume })
}

impl Watcher {
    async fn connect(&self, addresses: &Addresses, resume: Option<u64>) -> Option<Stream> {
        let request = pb::WatchRequest {
            range: Some(pb::KeyRange { kind: Some(Kind::Prefix(self.prefix.into())) }),
            start_revision: match (resume, self.from) {
                (Some(resume), _) => resume + 1,
                (None, From::Revision(revision)) => revision,
                (None, From::Now | From::State) => 0,
            },
            initial_state: resume.is_none() && self.from == From::State,
            previous: true,
            kinds: Vec::new(),
        };
        if self.over == Over::Grpc {
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", addresses.grpc)).unwrap();
            let mut client = KvServiceClient::new(channel.connect().await.ok()?);
            return client.watch(request).await.ok().map(|stream| Stream::Grpc(stream.into_inner()));
        }
        let prefix = support::escape(self.prefix.as_bytes());
        let mut url = format!("http://{}/v1/watch?prefix={prefix}&previous=true&encoding=base64", addresses.http);
        let mut headers = Vec::new();
        match (self.over, resume) {
            // A browser sends the same address again, and the id it heard last.
            (Over::EventStream, Some(resume)) => headers.push(("last-event-id", resume.to_string())),
            _ => url.push_str(&format!(
                "&start_revision={}&initial_state={}",
                request.start_revision, request.initial_state
            )),
        }
        let media_type = if self.over == Over::EventStream { "text/event-stream" } else { "application/x-ndjson" };
        headers.push(("accept", media_type.to_owned()));
        let client = support::client();
        let mut request = http::Request::get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answered = client.request(request.body(Full::new(Bytes::new())).unwrap());
        // Once, the client's library had opened a connection and never sent the request: such a one is begun anew.
        let response = tokio::time::timeout(ANSWER_WITHIN, answered).await.ok()?.ok()?;
        assert_eq!(response.status(), 200);
        Some(Stream::Lines { body: response.into_body(), text: Vec::new(), over: self.over })
    }

    /// Watches until `last` changes. Broken off, it resumes behind the last revision that it knows whole.
    pub async fn watch_until(self, last: Bytes, addresses: watch::Receiver<Addresses>) -> Watched {
        let mut watched = Watched {
            name: format!("{self:?}"),
            prefix: self.prefix.into(),
            after: 0,
            state: None,
            previous: true,
            groups: Vec::new(),
        };
        let mut resume = None;
        loop {
            let now = addresses.borrow().clone();
            let Some(mut stream) = self.connect(&now, resume).await else {
                // The server is on its way up again.
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let mut state = Vec::new();
            for _ in 0..self.hangs_up_after {
                let Some(Message { message, resume: known }) = stream.next().await else { break };
                let pb::WatchResponse { revision, events, partial, synced, reset } = message;
                if reset {
                    state.clear();
                    continue;
                }
                if partial {
                    assert!(resume.is_none() && self.from == From::State, "half a revision: {revision}");
                    state.extend(events.into_iter().map(|event| event.entry.unwrap()));
                    continue;
                }
                if synced {
                    watched.state = Some(std::mem::take(&mut state));
                }
                match (resume, self.from) {
                    (None, From::Revision(revision)) => watched.after = revision - 1,
                    (None, From::Now | From::State) => watched.after = revision,
                    (Some(resume), _) => assert!(revision >= resume, "{self:?} went back from {resume} to {revision}"),
                }
                resume = known;
                if events.is_empty() {
                    continue;
                }
                let is_last = events.iter().any(|event| key_of(event) == &last);
                watched.groups.push(Group { revision, events });
                if is_last {
                    return watched;
                }
            }
        }
    }
}
