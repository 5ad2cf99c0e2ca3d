//! When requests are sent: each behind the last one's answer, or at times that only the rate decides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The load begins.
    pub start: Instant,
    /// Measuring begins.
    pub begin: Instant,
    /// No request begins later.
    pub end: Instant,
}

/// When the next request of a thread begins.
#[derive(Clone, Debug)]
pub enum Pace {
    /// At once.
    Closed { end: Instant, stop: CancellationToken },
    /// At its time.
    Open(Arc<Tickets>),
}

/// The times at which a thread's requests are due. Whoever is free takes the next one and waits for it: a request that
/// finds everyone waiting for answers is sent late, and its latency counts from when it was due.
#[derive(Debug)]
pub struct Tickets {
    taken: AtomicU64,
    times: Times,
    alarm: Alarm,
    stop: CancellationToken,
}

/// Every `threads`th time of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub window: Window,
    pub rate: u64,
    pub thread: u64,
    pub threads: u64,
}

impl Times {
    /// When the thread's `number`th request is due, if that is before the end.
    fn due(&self, number: u64) -> Option<Instant> {
        let place = u128::from(number) * u128::from(self.threads) + u128::from(self.thread);
        let since_ns = u64::try_from(place * 1_000_000_000 / u128::from(self.rate)).ok()?;
        let due = self.window.start.checked_add(Duration::from_nanos(since_ns))?;
        (due < self.window.end).then_some(due)
    }
}

impl Tickets {
    /// A thread's requests.
    pub fn new(times: Times, alarm: Alarm, stop: CancellationToken) -> Self {
        Self { taken: AtomicU64::new(0), times, alarm, stop }
    }

    /// Wakes each whose time has come, for ever.
    pub async fn ring(&self) -> std::io::Result<()> {
        self.alarm.ring(&self.stop).await
    }

    /// How many were not sent.
    pub fn unsent(&self) -> u64 {
        let taken = self.taken.load(Ordering::Relaxed);
        (taken..).take_while(|number| self.times.due(*number).is_some()).count() as u64
    }

    async fn next(&self) -> Option<Instant> {
        if self.stop.is_cancelled() {
            return None;
        }
        let due = self.times.due(self.taken.fetch_add(1, Ordering::Relaxed))?;
        self.alarm.until(due).await.then_some(due)
    }
}

impl Pace {
    /// Waits for the next request's time, from which its latency counts; `None`: there is no other.
    pub async fn next(&self) -> Option<Instant> {
        match self {
            Self::Open(tickets) => tickets.next().await,
            Self::Closed { end, stop } => {
                let now = Instant::now();
                (now < *end && !stop.is_cancelled()).then_some(now)
            }
        }
    }

    /// How many requests were due and not sent.
    pub fn unsent(&self) -> u64 {
        match self {
            Self::Open(tickets) => tickets.unsent(),
            Self::Closed { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_times_of_a_rate() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let window = Window { start, begin: start + second, end: start + 3 * second };
        let times = |thread| Times { window, rate: 7, thread, threads: 3 };
        let mut all: Vec<_> =
            (0..3).flat_map(|thread| (0..).map_while(move |number| times(thread).due(number))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 21);
        assert_eq!(all.iter().filter(|due| **due >= window.begin).count(), 14);
        assert_eq!(all[0], start);
    }
}
