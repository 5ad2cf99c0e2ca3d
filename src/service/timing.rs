//! What `Server-Timing` says to callers who ask for it.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::engine::phases::{self, Phases};

/// Whether a request's `Kv-Timing` asks for its timing.
pub fn timing_asked(kv_timing: Option<&[u8]>) -> bool {
    kv_timing == Some(b"1")
}

/// Does `work` so that [`Timing::so_far`] can tell of it.
pub async fn timed<W: Future>(work: W) -> W::Output {
    phases::observed(work).await
}

/// Where a request spent its time. Shows the phases of what it wrote, and the total until it is shown, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    started: Instant,
    phases: Option<Phases>,
}

impl Timing {
    /// Within [`timed`]: the timing of a request that came at `started`.
    pub fn so_far(started: Instant) -> Option<Self> {
        phases::so_far().map(|phases| Self { started, phases })
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        if let Some(Phases { queue, commit, sync, apply }) = self.phases {
            for (name, time) in [("queue", queue), ("commit", commit), ("sync", sync), ("apply", apply)] {
                write!(formatter, "{name};dur={:.3}, ", ms(time))?;
            }
        }
        write!(formatter, "total;dur={:.3}", ms(self.started.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_told_in_milliseconds_and_reads_have_none() {
        let us = Duration::from_micros;
        let phases = Phases { queue: us(12), commit: us(34), sync: us(1_250), apply: us(5) };
        let told = Timing { started: Instant::now(), phases: Some(phases) }.to_string();
        assert!(
            told.starts_with("queue;dur=0.012, commit;dur=0.034, sync;dur=1.250, apply;dur=0.005, total;dur="),
            "{told}"
        );
        assert!(Timing { started: Instant::now(), phases: None }.to_string().starts_with("total;dur="));
    }

    #[tokio::test]
    async fn only_those_are_told_who_asked() {
        assert!(Timing::so_far(Instant::now()).is_none());
        assert!(timed(async { Timing::so_far(Instant::now()) }).await.is_some());
        assert!(timing_asked(Some(b"1")) && !timing_asked(Some(b"0")) && !timing_asked(None));
    }
}
