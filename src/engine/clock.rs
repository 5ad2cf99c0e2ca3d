//! Time, in milliseconds: a clock that never falls, and the time by which reads judge expiry.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;

/// Where time comes from. Tests bring their own.
pub trait TimeSource: Send + Sync + fmt::Debug {
    /// Wall clock, milliseconds since 1970 UTC. May jump either way.
    fn wall_ms(&self) -> u64;
    /// Time since some fixed moment. Never falls.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemTimeSource(Instant);

impl Default for SystemTimeSource {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl TimeSource for SystemTimeSource {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Last value plus monotonic time, slewed to the wall clock: a wall clock set back or ahead bends it by an eighth at
/// most, and never turns it round.
#[derive(Debug)]
pub struct Clock {
    source: Box<dyn TimeSource>,
    state: Mutex<ClockState>,
}

#[derive(Debug)]
struct ClockState {
    /// Microseconds, so that frequent readers lose no fractions.
    now_us: u64,
    monotonic: Duration,
}

impl Clock {
    /// A clock that begins at the wall clock, or at `floor_ms` where that is later: the last time the log knows.
    pub fn new(source: Box<dyn TimeSource>, floor_ms: u64) -> Self {
        let now_us = source.wall_ms().max(floor_ms).saturating_mul(1_000);
        let monotonic = source.monotonic();
        Self { source, state: Mutex::new(ClockState { now_us, monotonic }) }
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> u64 {
        let mut state = self.state.lock();
        let monotonic = self.source.monotonic();
        let elapsed_us = u64::try_from(monotonic.saturating_sub(state.monotonic).as_micros()).unwrap_or(0);
        let bend_us = elapsed_us / 8;
        if bend_us > 0 {
            // Slewing in steps of at least eight microseconds keeps the division honest; smaller ones add up first.
            let straight_us = state.now_us.saturating_add(elapsed_us);
            let wall_us = self.source.wall_ms().saturating_mul(1_000);
            // Within a millisecond the wall clock's own grain is noise.
            let goal_us = if wall_us.abs_diff(straight_us) <= 1_000 { straight_us } else { wall_us };
            state.now_us = goal_us.clamp(straight_us - bend_us, straight_us.saturating_add(bend_us));
            state.monotonic = monotonic;
        }
        state.now_us / 1_000
    }
}

/// Bit of [`VisibleTime`] that says: a record is stamped and not applied yet.
const FROZEN: u64 = 1 << 63;

/// The time by which reads judge expiry: it follows the clock, but while a stamped record waits to be applied it stands
/// still at that stamp. So a read never calls a key expired that a record with an earlier stamp could still keep alive,
/// and absence by expiry never reverts. Readers move it themselves, so that an idle server needs no tick.
#[derive(Debug, Default)]
pub struct VisibleTime(AtomicU64);

impl VisibleTime {
    /// The time for a read that begins now.
    pub fn read(&self, clock: &Clock) -> u64 {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            if seen & FROZEN != 0 {
                return seen & !FROZEN;
            }
            let now_ms = clock.now_ms();
            if now_ms <= seen {
                return seen;
            }
            match self.0.compare_exchange_weak(seen, now_ms, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return now_ms,
                Err(newer) => seen = newer,
            }
        }
    }

    /// The stamp for records that are about to be logged: at or after everything a read has seen. Stands still until
    /// [`Self::thaw`].
    pub fn stamp(&self, clock: &Clock) -> u64 {
        let seen = self.0.fetch_or(FROZEN, Ordering::AcqRel) & !FROZEN;
        let stamp_ms = clock.now_ms().max(seen);
        self.0.store(stamp_ms | FROZEN, Ordering::Release);
        stamp_ms
    }

    /// Follows the clock again: everything stamped is applied.
    pub fn thaw(&self) {
        self.0.fetch_and(!FROZEN, Ordering::AcqRel);
    }
}

/// Clocks for tests.
#[cfg(test)]
pub mod manual {
    use std::sync::Arc;

    use super::*;

    /// Clocks that a test moves.
    #[derive(Clone, Debug, Default)]
    pub struct ManualTimeSource {
        /// What the wall clock shows, in milliseconds.
        pub wall_ms: Arc<AtomicU64>,
        /// What the monotonic clock shows, in milliseconds.
        pub monotonic_ms: Arc<AtomicU64>,
    }

    impl ManualTimeSource {
        /// Lets both clocks run.
        pub fn advance_ms(&self, elapsed_ms: u64) {
            self.wall_ms.fetch_add(elapsed_ms, Ordering::SeqCst);
            self.monotonic_ms.fetch_add(elapsed_ms, Ordering::SeqCst);
        }
    }

    impl TimeSource for ManualTimeSource {
        fn wall_ms(&self) -> u64 {
            self.wall_ms.load(Ordering::SeqCst)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{manual::ManualTimeSource, *};

    fn clock_at(wall_ms: u64) -> (ManualTimeSource, Clock) {
        let source = ManualTimeSource::default();
        source.wall_ms.store(wall_ms, Ordering::SeqCst);
        (source.clone(), Clock::new(Box::new(source), 0))
    }

    #[test]
    fn a_wall_clock_set_back_slows_the_clock_and_never_turns_it_round() {
        let (source, clock) = clock_at(100_000);
        source.wall_ms.store(50_000, Ordering::SeqCst);
        let mut last = clock.now_ms();
        for _ in 0..100 {
            source.advance_ms(80);
            let now = clock.now_ms();
            assert_eq!(now - last, 70, "an eighth slower, still forward");
            last = now;
        }
    }

    #[test]
    fn a_wall_clock_set_ahead_is_approached_and_reached() {
        let (source, clock) = clock_at(100_000);
        source.wall_ms.fetch_add(1_000, Ordering::SeqCst);
        source.advance_ms(800);
        assert_eq!(clock.now_ms(), 100_900);
        source.advance_ms(80_000);
        assert_eq!(clock.now_ms(), source.wall_ms());
    }

    #[test]
    fn a_restart_goes_on_from_the_log_even_if_the_wall_clock_fell() {
        let source = ManualTimeSource::default();
        let clock = Clock::new(Box::new(source), 777);
        assert_eq!(clock.now_ms(), 777);
    }

    #[test]
    fn visible_time_stands_still_at_a_stamp_until_it_is_applied() {
        let (source, clock) = clock_at(1_000);
        let visible = VisibleTime::default();
        assert_eq!(visible.read(&clock), 1_000);
        let stamp = visible.stamp(&clock);
        source.advance_ms(500);
        assert_eq!(visible.read(&clock), stamp);
        visible.thaw();
        assert_eq!(visible.read(&clock), 1_500);
        assert!(visible.stamp(&clock) >= 1_500);
    }
}
