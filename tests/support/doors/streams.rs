//! Ranges through the three doors: scans, deletes, watchers.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use tandem::{
    pb::{self, EventKind},
    service::Watching,
};

use super::{
    Answered, Door, Refused, Rest, call, from_error, from_problem, from_status,
    json::{entry_from_json, message_from_json},
    range_query, result, send, unary,
};
use crate::support::{self, Answer};

/// All that a scan gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    pub entries: Vec<pb::Entry>,
    pub common_prefixes: Vec<Bytes>,
}

impl Scanned {
    fn add(&mut self, batch: pb::ScanResponse) {
        assert!(batch.store_revision > 0);
        self.entries.extend(batch.entries);
        self.common_prefixes.extend(batch.common_prefixes);
    }
}

/// A watcher through any door.
pub enum Watcher {
    Service(Watching),
    Grpc(tonic::Streaming<pb::WatchResponse>),
    Rest(Lines),
}

/// An NDJSON body as it comes.
pub struct Lines {
    body: hyper::body::Incoming,
    text: Vec<u8>,
}

impl Lines {
    pub async fn next(&mut self) -> Option<serde_json::Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.ok()?;
            self.text.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}

impl Watcher {
    /// The next message.
    pub async fn next(&mut self) -> Answered<pb::WatchResponse> {
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, self.next_message()).await.expect("a message within 30 s")
    }

    async fn next_message(&mut self) -> Answered<pb::WatchResponse> {
        match self {
            Self::Service(watching) => watching.next().await.expect("a message").map_err(from_error),
            Self::Grpc(stream) => match stream.message().await {
                Ok(message) => Ok(message.expect("a message")),
                Err(status) => Err(from_status(&status)),
            },
            Self::Rest(lines) => {
                let json = lines.next().await.expect("a line");
                match json.get("error") {
                    Some(problem) => Err(Refused {
                        reason: problem["reason"].as_str().unwrap().to_owned(),
                        outcome: None,
                        current_revision: None,
                        store_revision: None,
                        replayed: false,
                    }),
                    None => Ok(message_from_json(&json)),
                }
            }
        }
    }

    /// The next message that is not a progress mark.
    pub async fn next_news(&mut self) -> pb::WatchResponse {
        loop {
            let message = self.next().await.unwrap();
            if !message.events.is_empty() || message.synced || message.reset {
                return message;
            }
        }
    }
}

impl Door {
    pub async fn scan(&self, request: pb::ScanRequest) -> Answered<Scanned> {
        let mut scanned = Scanned::default();
        match self {
            Self::Service(service) => {
                let mut scanning = service.scan(&call(), request).await.map_err(from_error)?;
                while let Some(batch) = scanning.next().await {
                    scanned.add(batch.map_err(from_error)?);
                }
            }
            Self::Grpc(client) => {
                let mut batches = unary(client.clone().scan(request).await)?;
                while let Some(batch) = batches.message().await.map_err(|status| from_status(&status))? {
                    scanned.add(batch);
                }
            }
            Self::Rest { client, base } => {
                let mut query = range_query(request.range.as_ref());
                query.push("encoding=base64".into());
                for (name, bytes) in [("start_after", &request.start_after), ("delimiter", &request.delimiter)] {
                    if !bytes.is_empty() {
                        query.push(format!("{name}={}", support::escape(bytes)));
                    }
                }
                query.push(format!("descending={}&keys_only={}", request.descending, request.keys_only));
                let url = format!("{base}/v1/kv?{}", query.join("&"));
                let answer = send(client, "GET", &url, &[("accept", "application/x-ndjson")], b"").await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
                let text = answer.text();
                let mut lines: Vec<serde_json::Value> =
                    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                let end = lines.pop().unwrap();
                assert!(end["end"] == true && end["store_revision"].as_u64() > Some(0), "{end}");
                let mut last: Option<Bytes> = None;
                for line in &lines {
                    let key = match line.get("common_prefix_base64") {
                        Some(prefix) => {
                            let prefix = Bytes::from(BASE64_STANDARD.decode(prefix.as_str().unwrap()).unwrap());
                            scanned.common_prefixes.push(prefix.clone());
                            prefix
                        }
                        None => {
                            scanned.entries.push(entry_from_json(line));
                            scanned.entries.last().unwrap().key.clone()
                        }
                    };
                    let in_order = |last: &Bytes| if request.descending { *last > key } else { *last < key };
                    assert!(last.as_ref().is_none_or(in_order), "entries and prefixes come in one order");
                    last = Some(key);
                }
            }
        }
        Ok(scanned)
    }

    pub async fn delete_range(&self, request: pb::DeleteRangeRequest) -> Answered<pb::DeleteRangeResponse> {
        match self {
            Self::Service(service) => service.delete_range(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().delete_range(request).await),
            Self::Rest { client, base } => {
                let rest = Rest::new(&Bytes::new(), &[], request.options.as_ref());
                let mut query = [range_query(request.range.as_ref()), rest.query].concat();
                if request.max_keys > 0 {
                    query.push(format!("max_keys={}", request.max_keys));
                }
                let headers: Vec<_> = rest.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let url = format!("{base}/v1/kv?{}", query.join("&"));
                let answer: Answer = send(client, "DELETE", &url, &headers, b"").await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let json = answer.json();
                Ok(pb::DeleteRangeResponse {
                    result: Some(result(&answer)),
                    deleted: json["deleted"].as_u64().unwrap(),
                    complete: json["complete"].as_bool().unwrap(),
                })
            }
        }
    }

    pub async fn watch(&self, request: pb::WatchRequest) -> Answered<Watcher> {
        match self {
            Self::Service(service) => service.watch(&call(), request).await.map(Watcher::Service).map_err(from_error),
            Self::Grpc(client) => unary(client.clone().watch(request).await).map(Watcher::Grpc),
            Self::Rest { client, base } => {
                let mut query = range_query(request.range.as_ref());
                query.push(format!("start_revision={}", request.start_revision));
                query.push(format!("initial_state={}&previous={}", request.initial_state, request.previous));
                query.push("encoding=base64".into());
                if !request.kinds.is_empty() {
                    let name = |kind: &i32| match EventKind::try_from(*kind) {
                        Ok(kind) => kind.as_str_name().trim_start_matches("EVENT_KIND_").to_lowercase(),
                        Err(_) => format!("kind-{kind}"),
                    };
                    query.push(format!("kinds={}", request.kinds.iter().map(name).collect::<Vec<_>>().join(",")));
                }
                let url = format!("{base}/v1/watch?{}", query.join("&"));
                let request = http::Request::get(url).body(Full::new(Bytes::new())).unwrap();
                let response = client.request(request).await.unwrap();
                let (parts, body) = response.into_parts();
                if parts.status != 200 {
                    let body = body.collect().await.unwrap().to_bytes();
                    return Err(from_problem(&Answer { status: parts.status.as_u16(), headers: parts.headers, body }));
                }
                assert_eq!(parts.headers["content-type"], "application/x-ndjson");
                assert_eq!(parts.headers["cache-control"], "no-store");
                assert_eq!(parts.headers["x-accel-buffering"], "no");
                Ok(Watcher::Rest(Lines { body, text: Vec::new() }))
            }
        }
    }
}
