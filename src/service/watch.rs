//! Watching: what a watcher is told, message by message.

use std::collections::VecDeque;

use prost::Message as _;
use tokio::sync::watch::Receiver;

use super::{Call, Health, Service};
use crate::{
    engine::{Filter, Heard, InitialState, Part, Subscription},
    error::{Error, Reason, Result},
    limits::{INITIAL_STATE_TRIES_MAX, PROGRESS_EVERY, RESPONSE_BYTES_MAX},
    metrics::{Operation, Protocol},
    model::KeySpan,
    pb::{self, EventKind},
};

/// A watcher. Ends when dropped.
#[derive(Debug)]
pub struct Watching {
    service: Service,
    protocol: Protocol,
    health: Receiver<Health>,
    previous: bool,
    stage: Stage,
    /// Messages that wait to be taken.
    ready: VecDeque<pb::WatchResponse>,
}

#[derive(Debug)]
enum Stage {
    /// The entries that there are come first.
    Reading {
        state: Box<InitialState>,
        subscription: Subscription,
        tries: usize,
    },
    /// Changes come.
    Following(Subscription),
    Ended,
}

impl Service {
    /// Changes of a range as they happen.
    pub async fn watch(&self, call: &Call, request: pb::WatchRequest) -> Result<Watching> {
        self.counted(call, Operation::Watch, self.begin_watch(call.protocol, &request))
    }

    fn begin_watch(&self, protocol: Protocol, request: &pb::WatchRequest) -> Result<Watching> {
        let engine = self.engine()?;
        let filter = Filter::new(KeySpan::from_pb(request.range.as_ref())?, &request.kinds)?;
        let start_revision = (request.start_revision > 0).then_some(request.start_revision);
        let mut ready = VecDeque::new();
        let followed = match (start_revision, request.initial_state) {
            (None, true) => None,
            _ => match engine.watch(filter.clone(), start_revision) {
                Ok(subscription) => Some(subscription),
                Err(error) if error.reason == Reason::RevisionCompacted && request.initial_state => {
                    ready.push_back(pb::WatchResponse { reset: true, ..Default::default() });
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let stage = match followed {
            Some(subscription) => {
                // At once: the watcher learns from where it watches.
                ready.push_back(progress(subscription.known_revision()));
                Stage::Following(subscription)
            }
            None => {
                let (state, subscription) = engine.watch_state(filter)?;
                if let Some(reset) = ready.front_mut() {
                    reset.revision = state.revision();
                }
                Stage::Reading { state: Box::new(state), subscription, tries: 1 }
            }
        };
        let health = self.health_changed();
        Ok(Watching { service: self.clone(), protocol, health, previous: request.previous, stage, ready })
    }
}

fn progress(revision: u64) -> pb::WatchResponse {
    pb::WatchResponse { revision, ..Default::default() }
}

impl Watching {
    /// The next message; `None` behind the error that ended the watcher.
    pub async fn next(&mut self) -> Option<Result<pb::WatchResponse>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                self.service.metrics().watch_events(message.events.len() as u64);
                return Some(Ok(message));
            }
            if matches!(self.stage, Stage::Ended) {
                return None;
            }
            let stage = std::mem::replace(&mut self.stage, Stage::Ended);
            let stepped = tokio::select! {
                // A stop comes first: a watcher that always has something to tell would never hear of it.
                biased;
                _ = self.health.wait_for(|health| *health == Health::Draining) => Err(draining()),
                stepped = step(stage, &self.service, self.previous, &mut self.ready) => stepped,
            };
            match stepped {
                Ok(stage) => self.stage = stage,
                Err(error) => {
                    let metrics = self.service.metrics();
                    if error.reason == Reason::WatcherTooSlow {
                        metrics.watcher_dropped();
                    }
                    metrics.answered(Operation::Watch, self.protocol, Some(error.reason));
                    return Some(Err(error));
                }
            }
        }
    }
}

fn draining() -> Error {
    Error::new(Reason::Draining, "the server stops: watch again, from the next revision, once it is back")
}

/// Waits for the next thing to tell.
async fn step(
    stage: Stage,
    service: &Service,
    previous: bool,
    ready: &mut VecDeque<pb::WatchResponse>,
) -> Result<Stage> {
    match stage {
        Stage::Reading { mut state, subscription, tries } => {
            let revision = state.revision();
            match state.next().await {
                Part::Entries(entries) => {
                    if !entries.is_empty() {
                        ready.push_back(part_of_state(revision, entries));
                    }
                    Ok(Stage::Reading { state, subscription, tries })
                }
                Part::Done => {
                    ready.push_back(pb::WatchResponse { revision, synced: true, ..Default::default() });
                    Ok(Stage::Following(subscription))
                }
                Part::PassedBy if tries < INITIAL_STATE_TRIES_MAX => {
                    let filter = subscription.filter().clone();
                    drop(subscription);
                    let (state, subscription) = service.engine()?.watch_state(filter)?;
                    let revision = state.revision();
                    ready.push_back(pb::WatchResponse { revision, reset: true, ..Default::default() });
                    Ok(Stage::Reading { state: Box::new(state), subscription, tries: tries + 1 })
                }
                Part::PassedBy => Err(Error::new(
                    Reason::WatcherTooSlow,
                    "more is written than this watcher reads of the initial state: read faster, ask for a smaller range, or \
                     scan it and watch from the first batch's store_revision + 1",
                )),
            }
        }
        Stage::Following(mut subscription) => {
            match subscription.next(PROGRESS_EVERY).await? {
                Heard::Progress(revision) => ready.push_back(progress(revision)),
                Heard::Changes(changes) => {
                    let wanted = changes.list().iter().filter(|change| subscription.filter().wants(change));
                    let events = wanted.map(|change| change.to_event(changes.revision(), previous));
                    split(changes.revision(), events, ready);
                }
            }
            Ok(Stage::Following(subscription))
        }
        Stage::Ended => Ok(Stage::Ended),
    }
}

fn part_of_state(revision: u64, entries: Vec<pb::Entry>) -> pb::WatchResponse {
    let put = |entry| pb::Event { kind: EventKind::Put.into(), entry: Some(entry), previous: None };
    pb::WatchResponse { revision, events: entries.into_iter().map(put).collect(), partial: true, ..Default::default() }
}

/// All events of a revision, in one message or, past 4 MiB, in several.
fn split(revision: u64, events: impl Iterator<Item = pb::Event>, ready: &mut VecDeque<pb::WatchResponse>) {
    let mut message = progress(revision);
    let mut bytes = 0;
    for mut event in events {
        if event.encoded_len() > RESPONSE_BYTES_MAX {
            // One large value may go alone, two may not.
            event.previous = None;
        }
        let takes = event.encoded_len();
        if bytes > 0 && bytes + takes > RESPONSE_BYTES_MAX {
            message.partial = true;
            ready.push_back(std::mem::replace(&mut message, progress(revision)));
            bytes = 0;
        }
        bytes += takes;
        message.events.push(event);
    }
    ready.push_back(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize, previous_bytes: usize) -> pb::Event {
        let entry = |bytes| pb::Entry { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
        pb::Event { kind: 1, entry: Some(entry(bytes)), previous: (previous_bytes > 0).then(|| entry(previous_bytes)) }
    }

    #[test]
    fn a_large_revision_comes_in_several_messages_all_but_the_last_partial() {
        let mut ready = VecDeque::new();
        split(9, (0..5).map(|_| event(1_500_000, 0)), &mut ready);
        let shape: Vec<_> = ready.iter().map(|message| (message.events.len(), message.partial)).collect();
        assert_eq!(shape, [(2, true), (2, true), (1, false)]);
        assert!(ready.iter().all(|message| message.revision == 9 && message.encoded_len() <= RESPONSE_BYTES_MAX));
    }

    #[test]
    fn a_previous_value_is_left_out_where_both_would_not_fit() {
        let mut ready = VecDeque::new();
        split(9, [event(3_000_000, 3_000_000), event(1_000, 1_000)].into_iter(), &mut ready);
        let previous: Vec<_> = ready.iter().flat_map(|message| &message.events).map(|e| e.previous.is_some()).collect();
        assert_eq!(previous, [false, true]);
    }
}
