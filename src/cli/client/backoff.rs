//! Pauses between tries: longer each time, and not the same for all clients.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one series of tries.
#[derive(Debug)]
pub struct Backoff {
    longest_next: Duration,
}

impl Backoff {
    /// Before the first pause.
    pub fn new() -> Self {
        Self { longest_next: FIRST }
    }

    /// The next pause: between half and all of what doubles each time.
    pub fn next(&mut self) -> Duration {
        let pause = self.longest_next.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.longest_next = (2 * self.longest_next).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses[19] >= LONGEST / 2 && pauses.iter().all(|pause| *pause <= LONGEST));
    }
}
