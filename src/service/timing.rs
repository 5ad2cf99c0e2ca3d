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

/// Where a request spent its time. Shows the phases of what it wrote, and the total until it is shown, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    started: Instant,
    phases: Option<Phases>,
}

impl Timing {
    /// The timing of the running request, which came at `started`. To be asked within the poll in which it was answered.
    pub fn so_far(started: Instant) -> Self {
        Self { started, phases: phases::of_request(started, Instant::now()) }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        for (name, time) in self.phases.map(Phases::by_name).into_iter().flatten() {
            write!(formatter, "{name};dur={:.3}, ", ms(time))?;
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
        assert!(Timing::so_far(Instant::now()).to_string().starts_with("total;dur="));
        assert!(timing_asked(Some(b"1")) && !timing_asked(Some(b"0")) && !timing_asked(None));
    }
}
