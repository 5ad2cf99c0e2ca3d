//! A place of a load: one request after another.

use std::{sync::Arc, time::Instant};

use super::{
    ask::{Ask, Asking, Done, Refusal},
    door::Door,
    line::pause,
    measure::Recorder,
    pace::{Pace, Window},
    watching::Watched,
};

/// Who sends one request after another over one connection.
#[derive(Debug)]
pub struct Place {
    pub door: Door,
    pub asking: Asking,
    /// The key that it writes, where a watcher is to tell of it.
    pub watched: Option<Watched>,
}

impl Place {
    /// Sends requests until there is no other.
    pub async fn run(mut self, pace: Pace, window: Window, recorder: Arc<Recorder>) {
        loop {
            // Made up before its time comes, which it is not to cost.
            let ask = self.asking.next();
            let read = !matches!(ask, Ask::Put(..) | Ask::BatchWrite(..));
            let called = Instant::now();
            let Some(begun) = pace.next().await else { return };
            let measured = begun >= window.begin;
            if measured && matches!(pace, Pace::Open(_)) {
                recorder.late(begun.max(called).elapsed());
            }
            recorder.sent();
            let outcome = self.perform(ask).await;
            recorder.ended();
            match outcome {
                Ok((done, at)) if measured => recorder.succeeded(read, at - begun, at, done.keys),
                Ok(_) => {}
                Err(refusal) => {
                    let broken = refusal.broken;
                    let ended = self.watched.is_some() && refusal.reason == "WATCH_ENDED";
                    recorder.failed(refusal);
                    if ended {
                        return;
                    }
                    if broken && !self.door.renew().await {
                        pause().await;
                    }
                }
            }
        }
    }

    /// Sends a request; when its answer was there, or what it leads to.
    async fn perform(&mut self, ask: Ask) -> Result<(Done, Instant), Refusal> {
        let done = self.door.perform(ask).await?;
        let answered = Instant::now();
        let at = match &mut self.watched {
            Some(watched) => watched.told(done.revision).await?,
            None => answered,
        };
        Ok((done, at))
    }
}
