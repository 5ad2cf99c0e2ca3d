//! Waiting until an exact time: the runtime's own timer knows milliseconds, a load of 100,000 requests a second needs
//! microseconds. One timer of the operating system for each thread.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, oneshot},
};
use tokio_util::sync::CancellationToken;

/// Who waits, in the order of their times.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
    added: Notify,
}

impl Alarm {
    /// An alarm for this thread's runtime.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Deprecated for descriptors that may be closed or change meanwhile: an owned one does neither, and its successor
        // is unsafe to call.
        #[expect(deprecated)]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, waiting: Mutex::default(), added: Notify::new() })
    }

    /// Waits until `due`, which is no earlier than that of anyone before; `false`: it was stopped.
    pub async fn until(&self, due: Instant) -> bool {
        if due <= Instant::now() {
            return true;
        }
        let (sender, woken) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push_back((due, sender));
            waiting.len() == 1
        };
        if first {
            self.added.notify_one();
        }
        woken.await.is_ok()
    }

    /// Wakes each at its time, until it is stopped.
    pub async fn ring(&self, stop: &CancellationToken) -> io::Result<()> {
        loop {
            match self.wake() {
                None => tokio::select! {
                    () = self.added.notified() => {}
                    () = stop.cancelled() => break,
                },
                Some(wait) => {
                    self.set(wait)?;
                    tokio::select! {
                        ready = self.timer.readable() => self.read(&mut ready?)?,
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        self.waiting.lock().clear();
        // Nobody is to wait any more, even who comes now.
        loop {
            self.added.notified().await;
            self.waiting.lock().clear();
        }
    }

    /// Wakes all whose time has come: how long until the next one's.
    fn wake(&self) -> Option<Duration> {
        let mut waiting = self.waiting.lock();
        loop {
            let wait = waiting.front()?.0.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
            // Who gave up waiting needs no waking.
            if let Some((_, sender)) = waiting.pop_front() {
                let _ = sender.send(());
            }
        }
    }

    fn set(&self, wait: Duration) -> io::Result<()> {
        let wait = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: wait };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn read(&self, ready: &mut tokio::io::unix::AsyncFdReadyGuard<'_, OwnedFd>) -> io::Result<()> {
        let mut expirations = [0; 8];
        match rustix::io::read(self.timer.get_ref(), &mut expirations) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
