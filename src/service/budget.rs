//! Memory that request bodies may take while they arrive and until they are answered, over all connections together.
//! Each body is bounded by itself; thousands of half-sent ones must be bounded too.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::error::{Error, Reason, Result};

/// What all bodies together may take.
#[derive(Debug)]
pub struct Budget {
    used_bytes: AtomicUsize,
    bytes_max: usize,
}

/// What one request takes of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Budget {
    /// An unused budget.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { used_bytes: AtomicUsize::new(0), bytes_max })
    }

    /// A request that has taken nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: AtomicUsize::new(0) }
    }
}

impl Share {
    /// Takes more; OVERLOADED when there is no more.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        let before = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.budget.bytes_max {
            return Ok(());
        }
        let text = format!(
            "request bodies in flight take {} bytes already: send fewer at once, or retry later",
            self.budget.bytes_max
        );
        Err(Error::new(Reason::Overloaded, text).with(|details| details.limit = Some(self.budget.bytes_max as u64)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = Budget::new(100);
        let (first, second) = (budget.share(), budget.share());
        first.grow(60).unwrap();
        second.grow(40).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::Overloaded);
        drop(second);
        first.grow(40).unwrap();
        drop(first);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }
}
