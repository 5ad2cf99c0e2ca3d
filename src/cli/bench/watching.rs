//! One watcher for each connection, and telling the places that write there when it heard of what they wrote.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::watch;
use tonic::Streaming;

use super::{ask::Refusal, door::Door, keys::Keys, rest};
use crate::pb;

/// The last change of a key that a watcher was told of.
#[derive(Clone, Copy, Debug)]
struct Told {
    revision: u64,
    at: Instant,
}

/// A key that is watched.
#[derive(Debug)]
pub struct Watched(watch::Receiver<Told>);

impl Watched {
    /// When the watcher was told of this revision.
    pub async fn told(&mut self, revision: u64) -> Result<Instant, Refusal> {
        let told = self.0.wait_for(|told| told.revision >= revision).await;
        told.map(|told| told.at).map_err(|_| Refusal {
            reason: "WATCH_ENDED".to_owned(),
            message: "the watcher's stream ended, and it heard no more".to_owned(),
            broken: false,
        })
    }
}

/// Those who wait for the keys from a number on.
#[derive(Debug)]
struct Waiting {
    first: u64,
    keys: Vec<watch::Sender<Told>>,
}

impl Waiting {
    fn tell(&self, key: &[u8], revision: u64) {
        let place = Keys::number(key).and_then(|number| number.checked_sub(self.first));
        if let Some(sender) = place.and_then(|place| self.keys.get(place as usize)) {
            sender.send_replace(Told { revision, at: Instant::now() });
        }
    }
}

/// Watches `count` keys from the number `first` on, until the stream ends; it has begun when this returns.
pub async fn watch(mut door: Door, keys: Keys, first: u64, count: u64) -> Result<Vec<Watched>, Refusal> {
    let begun = Told { revision: 0, at: Instant::now() };
    let (senders, watched) = (0..count).map(|_| watch::channel(begun)).map(|(to, from)| (to, Watched(from))).unzip();
    let waiting = Waiting { first, keys: senders };
    let (start, behind) = (keys.key(first), keys.key(first + count));
    match &mut door {
        Door::Grpc(grpc) => {
            let mut messages = grpc.watch(start, behind).await?;
            // The first one says only from where it goes on.
            messages.message().await?;
            tokio::spawn(async move {
                listen_to_messages(messages, &waiting).await;
                drop(door);
            });
        }
        Door::Rest(rest) => {
            let path = rest::path(&[b"/v1/watch?start=", &start, b"&end=", &behind]);
            let mut lines = Lines { response: rest.send(Method::GET, path, Bytes::new()).await?, heard: Vec::new() };
            lines.next().await?;
            tokio::spawn(async move {
                while let Ok(line) = lines.next().await {
                    let keys = line.events.into_iter().filter_map(|event| event.entry?.key);
                    keys.for_each(|key| waiting.tell(key.as_bytes(), line.revision));
                }
                drop(door);
            });
        }
    }
    Ok(watched)
}

async fn listen_to_messages(mut messages: Streaming<pb::WatchResponse>, waiting: &Waiting) {
    while let Ok(Some(message)) = messages.message().await {
        for event in message.events {
            waiting.tell(&event.entry.unwrap_or_default().key, message.revision);
        }
    }
}

/// What matters of a line of a REST watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    revision: u64,
    events: Vec<LineEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LineEvent {
    entry: Option<LineEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LineEntry {
    key: Option<String>,
}

/// A stream of lines.
#[derive(Debug)]
struct Lines {
    response: Response<Incoming>,
    heard: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Line, Refusal> {
        let ended = || Refusal::broken("the watcher's stream ended");
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line = serde_json::from_slice(&self.heard[..end]);
                self.heard.drain(..=end);
                return line.map_err(|error| Refusal::unexpected(format!("a watcher was told no JSON: {error}")));
            }
            let frame = self.response.body_mut().frame().await.ok_or_else(ended)?.map_err(|_| ended())?;
            self.heard.extend_from_slice(frame.data_ref().map_or(&[][..], |chunk| &chunk[..]));
        }
    }
}
