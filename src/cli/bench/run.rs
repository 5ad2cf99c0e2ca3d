//! One run: connect, load the keys, let the threads go, and look at them each second.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    fill,
    generator::{self, News, Shared},
    keys::Values,
    line::Target,
    measure::{Point, Recorder, Tally},
    pace::Window,
    plan::Plan,
    progress::Progress,
    report::Report,
};
use crate::cli::client::failure::{Failure, Result, say};

/// All threads begin so long after the last one is connected.
const GET_READY: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);

/// Runs a plan.
pub async fn run(plan: Plan, target: Target) -> Result<Report> {
    let mut signals = Signals::new().map_err(|error| internal(&error))?;
    let values = Values::of(&plan);
    if plan.fill {
        tokio::select! {
            filled = fill::fill(&plan, &target, &values) => filled?,
            () = signals.next() => return Err(interrupted()),
        }
    }
    let (set_window, window) = watch::channel(None);
    let (news, mut told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let shared = Shared { plan: plan.clone(), target, values, window, stop: stop.clone(), news };
    let starting = (0..plan.threads).map(|number| generator::start(shared.clone(), number));
    let recorders: Vec<Arc<Recorder>> = starting.collect::<io::Result<_>>().map_err(|error| internal(&error))?;
    drop(shared);
    for _ in 0..plan.threads {
        tokio::select! {
            news = told.recv() => if let Some(News::Failed(refusal)) = news {
                return Err(fill::unavailable(&plan, &refusal));
            },
            () = signals.next() => return Err(interrupted()),
        }
    }
    let start = Instant::now() + GET_READY;
    let begin = start + plan.warmup;
    let window = Window { start, begin, end: begin + plan.duration };
    set_window.send_replace(Some(window));
    let mut watch = Watch::new(recorders, window).map_err(|error| internal(&error))?;
    watch.until_ended(&plan, &mut told, &mut signals, &stop).await?;
    watch.report(plan, stop.is_cancelled())
}

/// What asks this program to stop.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Looks at the threads while they run.
#[derive(Debug)]
struct Watch {
    recorders: Vec<Arc<Recorder>>,
    window: Window,
    progress: Progress,
    /// Since the last point.
    recent: Tally,
    total: Tally,
    points: Vec<Point>,
    /// The end of the last point, since measuring began.
    looked: Duration,
    /// What this program had taken of the processor when measuring began.
    cpu_before: Option<Duration>,
    stopped: Option<Instant>,
}

impl Watch {
    fn new(recorders: Vec<Arc<Recorder>>, window: Window) -> io::Result<Self> {
        Ok(Self {
            recorders,
            window,
            progress: Progress::new(window),
            recent: Tally::new()?,
            total: Tally::new()?,
            points: Vec::new(),
            looked: Duration::ZERO,
            cpu_before: None,
            stopped: None,
        })
    }

    /// Until each thread has told that it ended.
    async fn until_ended(
        &mut self,
        plan: &Plan,
        told: &mut mpsc::UnboundedReceiver<News>,
        signals: &mut Signals,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut running = self.recorders.len();
        while running > 0 {
            let now = Instant::now();
            if now >= self.window.begin && self.cpu_before.is_none() {
                self.cpu_before = Some(cpu_time());
            }
            let next_point = self.window.begin + self.looked + SECOND;
            // What is left at the end, a full second or somewhat more, is the last point.
            if now >= next_point && now + SECOND / 2 < self.window.end {
                self.add_point(now);
            }
            self.progress.move_on(now);
            let next_look = [self.progress.next(now), next_point, self.window.begin].into_iter();
            let next_look = next_look.filter(|time| *time > now).min().unwrap_or(now + SECOND);
            tokio::select! {
                () = tokio::time::sleep_until(next_look.into()) => {}
                news = told.recv() => match news {
                    Some(News::Failed(refusal)) => return Err(fill::unavailable(plan, &refusal)),
                    Some(News::Ended) => running -= 1,
                    Some(News::Connected) => {}
                    None => running = 0,
                },
                () = signals.next() => {
                    if self.stopped.is_some() {
                        return Err(interrupted());
                    }
                    self.stopped = Some(Instant::now());
                    stop.cancel();
                    say("stopping: what is on its way is waited for, unless this is interrupted again");
                }
            }
        }
        Ok(())
    }

    fn add_point(&mut self, now: Instant) {
        for recorder in &self.recorders {
            recorder.hand_over(&mut self.recent);
        }
        let at = now.saturating_duration_since(self.window.begin);
        let point = Point::of(&self.recent, self.looked, at);
        self.total.take(&mut self.recent);
        self.progress.add(&point, now);
        self.points.push(point);
        self.looked = at;
    }

    fn report(mut self, plan: Plan, interrupted: bool) -> Result<Report> {
        let cpu = self.cpu_before.map_or(Duration::ZERO, |before| cpu_time().saturating_sub(before));
        self.recorders.iter().for_each(|recorder| recorder.hand_over(&mut self.recent));
        // Measured from its beginning to its last answer, and no shorter than it was asked to.
        let ended = self.stopped.map_or(self.window.end, |stopped| stopped.min(self.window.end));
        let last = self.recent.last.max(self.total.last).max(Some(ended)).unwrap_or(ended);
        let elapsed = last.saturating_duration_since(self.window.begin);
        if elapsed.is_zero() && interrupted {
            self.progress.finish();
            return Err(self::interrupted());
        }
        self.points.push(Point::of(&self.recent, self.looked, elapsed));
        self.total.take(&mut self.recent);
        self.progress.finish();
        Ok(Report { plan, total: self.total, points: self.points, elapsed, cpu, interrupted })
    }
}

/// What this program has taken of the processor.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn interrupted() -> Failure {
    Failure::condition("INTERRUPTED: it was stopped before anything was measured, or while answers were waited for")
}

fn internal(error: &io::Error) -> Failure {
    Failure::unavailable(format!("INTERNAL: this machine refused a thread or a file: {error}"))
}
