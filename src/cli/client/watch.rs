//! `tandem watch`: changes as they happen, over as many connections as it takes.

use std::ffi::OsString;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tonic::Status;

use super::{
    arguments::bytes,
    backoff::Backoff,
    connection::{ConnectionFlags, Store},
    event_command::run,
    failure::{Result, describe, may_pass, say},
    output::{Format, Output, OutputFlags},
    range::RangeFlags,
    table::{escape, preview},
};
use crate::{
    api::rest::{WatchJson, kind_text},
    pb::{self, EventKind, key_range::Kind},
};

/// What happened to a key.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindFlag {
    Put,
    Touch,
    Delete,
    Expire,
    Evict,
}

/// What to watch.
#[derive(Args, Debug)]
pub struct Watch {
    /// This one key.
    #[arg(value_parser = bytes(), conflicts_with_all = ["prefix", "start", "end", "all"])]
    key: Option<Bytes>,
    #[command(flatten)]
    range: RangeFlags,
    /// From this revision on; otherwise from now on.
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// First the entries that there are.
    #[arg(long)]
    initial_state: bool,
    /// With the entries before.
    #[arg(long)]
    previous: bool,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<KindFlag>,
    /// Run this by `sh -c` for each event, one after another, instead of printing it. TANDEM_KIND, TANDEM_KEY,
    /// TANDEM_KEY_BASE64 and TANDEM_REVISION are in its environment, the value is its standard input.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<OsString>,
    #[command(flatten)]
    output: OutputFlags,
    #[command(flatten)]
    connection: ConnectionFlags,
}

impl Watch {
    pub async fn run(self) -> Result<()> {
        let range = match self.key {
            Some(key) => pb::KeyRange { kind: Some(Kind::Key(key)) },
            None => self.range.required()?,
        };
        let request = pb::WatchRequest {
            range: Some(range),
            start_revision: self.from,
            initial_state: self.initial_state,
            previous: self.previous,
            kinds: self.kinds.iter().map(|kind| kind.to_pb().into()).collect(),
        };
        let mut shown = Shown { output: self.output.open(), exec: self.exec };
        let mut place = Place::of(&request);
        let mut store = self.connection.connect().await?;
        let mut backoff = Backoff::new();
        loop {
            let heard_before = place.heard;
            let status = match follow(&mut store, &request, &mut place, &mut shown).await? {
                Some(status) if place.heard == 0 || !may_pass(&status) => return Err(status.into()),
                Some(status) => describe(&status),
                None => "UNAVAILABLE: the server ended the stream".to_owned(),
            };
            if place.heard > heard_before {
                backoff = Backoff::new();
                say(format_args!("{status}: watching again {}", place.describe()));
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Watches over one connection; `Some`: why it ended.
async fn follow(
    store: &mut Store,
    request: &pb::WatchRequest,
    place: &mut Place,
    shown: &mut Shown,
) -> Result<Option<Status>> {
    let mut messages = match store.watch(place.resume(request)).await {
        Ok(messages) => messages.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    loop {
        match messages.message().await {
            Ok(Some(mut message)) => {
                place.take(&mut message);
                shown.message(&message)?;
            }
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}

/// How far a watcher has come: what to ask for where a connection broke off, so that nothing is missed or told twice.
#[derive(Debug)]
struct Place {
    /// Messages that came.
    heard: u64,
    /// The revision to ask for; `None`: as at the beginning.
    next: Option<u64>,
    /// Events of that revision that were told, where it broke off in the middle of it.
    told: usize,
    /// Those of them that are still to be left out.
    skip: usize,
    /// The entries that there are come first, and are not complete.
    in_state: bool,
}

impl Place {
    fn of(request: &pb::WatchRequest) -> Self {
        Self { heard: 0, next: None, told: 0, skip: 0, in_state: request.initial_state && request.start_revision == 0 }
    }

    /// The request that goes on from here.
    fn resume(&mut self, request: &pb::WatchRequest) -> pb::WatchRequest {
        self.skip = self.told;
        pb::WatchRequest { start_revision: self.next.unwrap_or(request.start_revision), ..request.clone() }
    }

    /// Takes note of a message, and leaves out of it what was told before.
    fn take(&mut self, message: &mut pb::WatchResponse) {
        self.heard += 1;
        if message.reset {
            (self.in_state, self.next, self.told, self.skip) = (true, None, 0, 0);
            return;
        }
        if message.synced {
            self.in_state = false;
        }
        // A mark that only says from where it goes on is behind what was heard.
        let behind = self.next.is_some_and(|next| message.revision < next);
        if self.in_state || behind {
            return;
        }
        if message.partial {
            if self.next != Some(message.revision) {
                (self.next, self.told) = (Some(message.revision), 0);
            }
            let again = self.skip.min(message.events.len());
            message.events.drain(..again);
            self.skip -= again;
            self.told += message.events.len();
        } else {
            if self.next == Some(message.revision) {
                message.events.drain(..self.skip.min(message.events.len()));
            }
            (self.next, self.told, self.skip) = (Some(message.revision + 1), 0, 0);
        }
    }

    fn describe(&self) -> String {
        match self.next {
            Some(revision) => format!("from revision {revision}"),
            None => "from the beginning".to_owned(),
        }
    }
}

/// What becomes of the messages.
#[derive(Debug)]
struct Shown {
    output: Output,
    exec: Option<OsString>,
}

impl Shown {
    fn message(&mut self, message: &pb::WatchResponse) -> Result<()> {
        if let Some(command) = &self.exec {
            return message.events.iter().try_for_each(|event| run(command, message.revision, event));
        }
        match self.output.format() {
            Format::Json => self.output.json(&WatchJson::new(message, false))?,
            Format::Raw => self.raw(message)?,
            Format::Text => self.text(message)?,
        }
        self.output.flush()
    }

    /// A line each: kind, revision, key, value, with tabs between.
    fn raw(&mut self, message: &pb::WatchResponse) -> Result<()> {
        for mark in marks(message) {
            self.output.line(format_args!("{mark}\t{}\t\t", message.revision))?;
        }
        for event in &message.events {
            let entry = event.entry.clone().unwrap_or_default();
            self.output.bytes(format!("{}\t{}\t", kind_text(event.kind()), message.revision).as_bytes())?;
            self.output.bytes(&entry.key)?;
            self.output.bytes(b"\t")?;
            self.output.bytes(&entry.value)?;
            self.output.bytes(b"\n")?;
        }
        Ok(())
    }

    fn text(&mut self, message: &pb::WatchResponse) -> Result<()> {
        for mark in marks(message) {
            let meaning = if mark == "reset" { "history is gone: the state follows anew" } else { "this is the state" };
            self.output.line(format_args!("{:>12}  {mark:<6}  {meaning}", message.revision))?;
        }
        for event in &message.events {
            let entry = event.entry.clone().unwrap_or_default();
            let kind = event.kind();
            let value = match kind {
                EventKind::Put | EventKind::Touch => format!(" = {}", preview(&entry.value)),
                _ => String::new(),
            };
            let before = match &event.previous {
                Some(previous) => format!("  (before: {})", preview(&previous.value)),
                None => String::new(),
            };
            let (revision, kind) = (message.revision, kind_text(kind));
            self.output.line(format_args!("{revision:>12}  {kind:<6}  {}{value}{before}", escape(&entry.key)))?;
        }
        Ok(())
    }
}

fn marks(message: &pb::WatchResponse) -> impl Iterator<Item = &'static str> {
    [(message.reset, "reset"), (message.synced, "synced")].into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark)
}

impl KindFlag {
    fn to_pb(self) -> EventKind {
        match self {
            Self::Put => EventKind::Put,
            Self::Touch => EventKind::Touch,
            Self::Delete => EventKind::Delete,
            Self::Expire => EventKind::Expire,
            Self::Evict => EventKind::Evict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(revision: u64, keys: &[&'static str], partial: bool) -> pb::WatchResponse {
        let event = |key: &&'static str| pb::Event {
            entry: Some(pb::Entry { key: Bytes::from(*key), ..Default::default() }),
            ..Default::default()
        };
        pb::WatchResponse { revision, events: keys.iter().map(event).collect(), partial, ..Default::default() }
    }

    fn keys(message: &pb::WatchResponse) -> Vec<Bytes> {
        message.events.iter().filter_map(|event| Some(event.entry.as_ref()?.key.clone())).collect()
    }

    #[test]
    fn it_goes_on_behind_the_last_whole_revision_or_mark() {
        let request = pb::WatchRequest::default();
        let mut place = Place::of(&request);
        assert_eq!(place.resume(&request).start_revision, 0);
        place.take(&mut message(7, &[], false));
        assert_eq!(place.resume(&request).start_revision, 8);
        place.take(&mut message(9, &["a"], false));
        assert_eq!(place.resume(&request).start_revision, 10);
    }

    #[test]
    fn a_revision_that_broke_off_in_its_middle_is_told_once() {
        let request = pb::WatchRequest { start_revision: 5, ..Default::default() };
        let mut place = Place::of(&request);
        place.take(&mut message(5, &["a", "b"], true));
        place.take(&mut message(5, &["c"], true));
        assert_eq!(place.resume(&request).start_revision, 5);
        // Again, behind the mark that says from where, and cut otherwise; and broken off once more.
        place.take(&mut message(4, &[], false));
        let mut first = message(5, &["a"], true);
        place.take(&mut first);
        assert!(keys(&first).is_empty());
        assert_eq!(place.resume(&request).start_revision, 5);
        let (mut first, mut last) = (message(5, &["a", "b"], true), message(5, &["c", "d"], false));
        place.take(&mut first);
        place.take(&mut last);
        assert_eq!((keys(&first).len(), keys(&last)), (0, vec![Bytes::from("d")]));
        assert_eq!(place.resume(&request).start_revision, 6);
    }

    #[test]
    fn a_state_that_broke_off_begins_anew() {
        let request = pb::WatchRequest { initial_state: true, ..Default::default() };
        let mut place = Place::of(&request);
        place.take(&mut message(9, &["a"], true));
        assert_eq!(place.resume(&request).start_revision, 0);
        place.take(&mut message(9, &["a"], true));
        place.take(&mut pb::WatchResponse { revision: 9, synced: true, ..Default::default() });
        assert_eq!(place.resume(&request).start_revision, 10);
        // History is gone: the state comes anew.
        place.take(&mut pb::WatchResponse { revision: 90, reset: true, ..Default::default() });
        place.take(&mut message(90, &["a"], true));
        assert_eq!(place.resume(&request).start_revision, 0);
    }
}
