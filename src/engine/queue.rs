//! The bounded queue between the callers and the log: full means OVERLOADED, never more memory.

use std::{collections::VecDeque, time::Instant};

use parking_lot::{Condvar, Mutex};

use super::completion::Ticket;
use crate::{
    error::{Error, Reason, Result},
    limits::GROUP_BYTES_MAX,
    pb::storage::LogRecord,
};

/// A command on its way into the log.
#[derive(Debug)]
pub struct Proposal {
    /// The command with its request id. Index, term and time are set when the log takes it.
    pub record: LogRecord,
    /// The record as it will be logged, from its field 4 on: encoded by the caller, off the log thread.
    pub body: Vec<u8>,
    /// Whether the answer waits for a sync.
    pub fsynced: bool,
    /// Where the answer goes.
    pub ticket: Ticket,
}

/// What the log finds when it looks into the queue.
#[derive(Debug)]
pub enum Taken {
    /// Proposals, in order.
    Group(VecDeque<Proposal>),
    /// Nothing came until the given time.
    Idle,
    /// Nothing is left and nothing more will come.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Proposal>,
    bytes: usize,
    /// Set once: why nothing is taken any more.
    closed: Option<Reason>,
    /// The log thread sleeps and wants a wake.
    log_sleeps: bool,
    /// Something besides proposals wants the log thread's attention.
    nudged: bool,
}

/// Proposals that wait for the log.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    items_max: usize,
    bytes_max: usize,
}

impl Queue {
    /// An empty queue with these bounds.
    pub fn new(items_max: usize, bytes_max: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), items_max, bytes_max }
    }

    /// Adds a proposal. OVERLOADED when the queue is full; the reason of the closing once it is closed.
    pub fn push(&self, proposal: Proposal) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(reason) = state.closed {
            return Err(closed_error(reason));
        }
        let bytes = state.bytes + proposal.body.len();
        // A single proposal always fits: its size was checked against the request limit.
        if state.waiting.len() >= self.items_max || (bytes > self.bytes_max && !state.waiting.is_empty()) {
            let error = format!(
                "the write queue is full ({} writes, {} bytes): send fewer writes at once, or retry later",
                state.waiting.len(),
                state.bytes
            );
            return Err(Error::new(Reason::Overloaded, error).with(|details| {
                details.limit = Some(self.items_max as u64);
            }));
        }
        state.bytes = bytes;
        state.waiting.push_back(proposal);
        if std::mem::take(&mut state.log_sleeps) {
            drop(state);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes what one group may hold; sleeps until something is there, `until` has come or the queue is closed.
    pub fn take(&self, until: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                return Taken::Group(take_group(&mut state));
            }
            if state.closed.is_some() {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.nudged) {
                return Taken::Idle;
            }
            state.log_sleeps = true;
            match until {
                None => self.filled.wait(&mut state),
                Some(until) => {
                    if self.filled.wait_until(&mut state, until).timed_out() && state.waiting.is_empty() {
                        state.log_sleeps = false;
                        return Taken::Idle;
                    }
                }
            }
        }
    }

    /// Wakes the log thread without a proposal.
    pub fn nudge(&self) {
        let mut state = self.state.lock();
        state.nudged = true;
        state.log_sleeps = false;
        drop(state);
        self.filled.notify_one();
    }

    /// Takes no more proposals from now on; those that wait are still handed out.
    pub fn close(&self, reason: Reason) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(reason);
        state.log_sleeps = false;
        drop(state);
        self.filled.notify_one();
    }

    /// Closes the queue and refuses everything in it.
    pub fn fail(&self, reason: Reason) {
        self.close(reason);
        let waiting = {
            let mut state = self.state.lock();
            state.closed = Some(reason);
            state.bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        for proposal in waiting {
            proposal.ticket.answer(Err(closed_error(reason)));
        }
    }

    /// How many proposals wait.
    pub fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

fn take_group(state: &mut State) -> VecDeque<Proposal> {
    // The common case: everything fits, and the whole queue changes hands without a copy.
    if state.bytes <= GROUP_BYTES_MAX {
        state.bytes = 0;
        return std::mem::take(&mut state.waiting);
    }
    let mut count = 0;
    let mut bytes = 0;
    for proposal in &state.waiting {
        if count > 0 && bytes + proposal.body.len() > GROUP_BYTES_MAX {
            break;
        }
        count += 1;
        bytes += proposal.body.len();
    }
    state.bytes -= bytes;
    let rest = state.waiting.split_off(count);
    std::mem::replace(&mut state.waiting, rest)
}

/// The error of a write that comes after the queue was closed.
pub fn closed_error(reason: Reason) -> Error {
    let text = match reason {
        Reason::WalFailed => {
            "the write-ahead log failed and takes no more writes; reads go on: check the disk and restart the server"
        }
        _ => "the server stops and takes no more writes: retry with another or after its restart",
    };
    Error::new(reason, text)
}

#[cfg(test)]
mod tests {
    use super::{super::completion, *};

    fn proposal(bytes: usize) -> (Proposal, completion::Pending) {
        let (ticket, pending) = completion::ticket();
        (Proposal { record: LogRecord::default(), body: vec![0; bytes], fsynced: true, ticket }, pending)
    }

    #[test]
    fn a_full_queue_says_overloaded_and_keeps_what_it_has() {
        let queue = Queue::new(2, 1_000);
        let (first, _first) = proposal(10);
        let (second, _second) = proposal(10);
        let (third, _third) = proposal(10);
        queue.push(first).unwrap();
        queue.push(second).unwrap();
        assert_eq!(queue.push(third).unwrap_err().reason, Reason::Overloaded);
        assert_eq!(queue.depth(), 2);
        let (large, _large) = proposal(2_000);
        assert!(matches!(queue.take(None), Taken::Group(group) if group.len() == 2));
        queue.push(large).unwrap();
        let (other, _other) = proposal(1);
        assert_eq!(queue.push(other).unwrap_err().reason, Reason::Overloaded);
    }

    #[test]
    fn a_group_is_bounded_in_bytes_and_a_larger_record_goes_alone() {
        let queue = Queue::new(10, usize::MAX);
        let sizes = [10, GROUP_BYTES_MAX + 1, 10, 20];
        let pending: Vec<_> = sizes
            .map(|bytes| {
                let (proposal, pending) = proposal(bytes);
                queue.push(proposal).unwrap();
                pending
            })
            .into();
        let mut groups = Vec::new();
        while queue.depth() > 0 {
            let Taken::Group(group) = queue.take(None) else { panic!("a group") };
            groups.push(group.iter().map(|proposal| proposal.body.len()).collect::<Vec<_>>());
        }
        assert_eq!(groups, [vec![10], vec![GROUP_BYTES_MAX + 1], vec![10, 20]]);
        drop(pending);
    }

    #[test]
    fn a_closed_queue_hands_out_the_rest_and_a_failed_one_refuses_it() {
        let queue = Queue::new(10, 1_000);
        let (waiting, _pending) = proposal(1);
        queue.push(waiting).unwrap();
        queue.close(Reason::Draining);
        let (late, _late) = proposal(1);
        assert_eq!(queue.push(late).unwrap_err().reason, Reason::Draining);
        assert!(matches!(queue.take(None), Taken::Group(_)));
        assert!(matches!(queue.take(None), Taken::Closed));
    }
}
