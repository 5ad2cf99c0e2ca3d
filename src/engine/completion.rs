//! How an answer finds its caller: a ticket for each proposal, and one mailbox for each core.
//!
//! Waking a caller on another thread costs a lock and often a syscall. So the log thread puts all answers of a group
//! that belong to one core into that core's mailbox and wakes it once; a task there hands them out.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{apply::Applied, phases::GroupTimes};
use crate::{error::Result, pb};

/// What became of a proposal.
pub type Answer = Result<Committed>;

/// A record that is in the log and applied.
#[derive(Clone, Debug)]
pub struct Committed {
    /// What the record did.
    pub applied: Applied,
    /// How safe it is.
    pub durability: pb::Durability,
    /// When its group passed through the log.
    pub times: GroupTimes,
}

#[derive(Debug)]
enum State {
    /// Waits in the queue; the caller can still take it back.
    Queued(Option<Waker>),
    /// The log has it.
    Taken(Option<Waker>),
    Done(Answer),
    /// The caller took it back, or took its answer.
    Gone,
}

type Slot = Arc<Mutex<State>>;
/// Answers, each with where it goes.
type Answers = Vec<(Slot, Answer)>;

/// The log's end of a proposal.
#[derive(Debug)]
pub struct Ticket {
    slot: Slot,
    mailbox: Option<Arc<Mailbox>>,
}

/// The caller's end: resolves to the answer.
#[derive(Debug)]
pub struct Pending {
    slot: Slot,
}

/// Both ends of a new proposal, which answers by way of the current core's mailbox where there is one.
pub fn ticket() -> (Ticket, Pending) {
    let slot = Arc::new(Mutex::new(State::Queued(None)));
    let mailbox = CURRENT.with_borrow(Option::clone);
    (Ticket { slot: Arc::clone(&slot), mailbox }, Pending { slot })
}

impl Ticket {
    /// Takes the proposal out of its caller's hands; false if the caller gave it up before.
    pub fn take(&self) -> bool {
        let mut state = self.slot.lock();
        match &mut *state {
            State::Queued(waker) => {
                let waker = waker.take();
                *state = State::Taken(waker);
                true
            }
            State::Taken(_) | State::Done(_) | State::Gone => false,
        }
    }

    /// Answers at once, on this thread.
    pub fn answer(self, answer: Answer) {
        resolve(&self.slot, answer);
    }
}

fn resolve(slot: &Slot, answer: Answer) {
    let mut state = slot.lock();
    let waker = match &mut *state {
        State::Queued(waker) | State::Taken(waker) => waker.take(),
        State::Done(_) | State::Gone => return,
    };
    *state = State::Done(answer);
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Pending {
    /// Gives up: true if the log had not taken the proposal, which then never happens.
    pub fn abandon(&self) -> bool {
        let mut state = self.slot.lock();
        let queued = matches!(*state, State::Queued(_));
        if queued {
            *state = State::Gone;
        }
        queued
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // A caller that went away frees the queue of work that nobody waits for.
        self.abandon();
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.slot.lock();
        match &mut *state {
            State::Queued(waker) | State::Taken(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Done(_) => match std::mem::replace(&mut *state, State::Gone) {
                State::Done(answer) => Poll::Ready(answer),
                State::Queued(_) | State::Taken(_) | State::Gone => Poll::Pending,
            },
            State::Gone => Poll::Pending,
        }
    }
}

/// Answers on their way to the callers of one core.
#[derive(Debug, Default)]
pub struct Mailbox {
    inbox: Mutex<Answers>,
    filled: Notify,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}

impl Mailbox {
    /// Gives this thread a mailbox and a task that empties it. To be called within the runtime of a core.
    pub fn install_on_this_core() {
        let mailbox = Arc::new(Self::default());
        CURRENT.set(Some(Arc::clone(&mailbox)));
        tokio::spawn(async move {
            let mut answers = Vec::new();
            loop {
                mailbox.filled.notified().await;
                std::mem::swap(&mut answers, &mut *mailbox.inbox.lock());
                for (slot, answer) in answers.drain(..) {
                    resolve(&slot, answer);
                }
            }
        });
    }
}

/// The answers of one group, sorted by core.
#[derive(Debug, Default)]
pub struct Deliveries {
    by_core: Vec<(Arc<Mailbox>, Answers)>,
    /// Of callers on threads without a mailbox.
    direct: Answers,
}

impl Deliveries {
    /// Adds an answer.
    pub fn add(&mut self, ticket: Ticket, answer: Answer) {
        let Some(mailbox) = ticket.mailbox else {
            self.direct.push((ticket.slot, answer));
            return;
        };
        // As many entries as cores: a scan beats a map.
        match self.by_core.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &mailbox)) {
            Some((_, answers)) => answers.push((ticket.slot, answer)),
            None => self.by_core.push((mailbox, vec![(ticket.slot, answer)])),
        }
    }

    /// Hands everything over, waking each core once.
    pub fn send(&mut self) {
        for (mailbox, answers) in &mut self.by_core {
            if !answers.is_empty() {
                mailbox.inbox.lock().append(answers);
                mailbox.filled.notify_one();
            }
        }
        for (slot, answer) in self.direct.drain(..) {
            resolve(&slot, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn refused() -> Answer {
        Err(Error::internal("an answer"))
    }

    #[tokio::test]
    async fn an_answer_reaches_its_caller_with_and_without_a_mailbox() {
        let (direct, pending) = ticket();
        direct.answer(refused());
        assert!(pending.await.is_err());

        Mailbox::install_on_this_core();
        let (posted, pending) = ticket();
        let mut deliveries = Deliveries::default();
        deliveries.add(posted, refused());
        deliveries.send();
        assert!(pending.await.is_err());
    }

    #[test]
    fn a_proposal_is_given_up_or_taken_never_both() {
        let (first, pending) = ticket();
        assert!(pending.abandon());
        assert!(!first.take());
        let (second, pending) = ticket();
        assert!(second.take());
        assert!(!pending.abandon());
    }

    #[test]
    fn a_caller_that_goes_away_gives_its_proposal_up() {
        let (ticket, pending) = ticket();
        drop(pending);
        assert!(!ticket.take());
    }
}
