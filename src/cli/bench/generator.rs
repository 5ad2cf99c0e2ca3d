//! The threads that make a load: each with a runtime and connections of its own, so that they share nothing on the way of a
//! request.

use std::{io, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    alarm::Alarm,
    ask::{Asking, Refusal},
    door::Lines,
    keys::{Keys, Values},
    line::Target,
    measure::Recorder,
    options::Workload,
    pace::{Pace, Tickets, Times, Window},
    place::Place,
    plan::Plan,
    watching,
};

/// What a thread tells.
#[derive(Debug)]
pub enum News {
    /// It is connected.
    Connected,
    /// It cannot begin.
    Failed(Refusal),
    /// All its requests are answered or given up.
    Ended,
}

/// What all threads of a load share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub plan: Plan,
    pub target: Target,
    pub values: Values,
    /// Set when all are connected.
    pub window: watch::Receiver<Option<Window>>,
    pub stop: CancellationToken,
    pub news: mpsc::UnboundedSender<News>,
}

/// Starts thread `number`, which tells how it gets on; what it measures is in the recorder.
pub fn start(shared: Shared, number: usize) -> io::Result<Arc<Recorder>> {
    let recorder = Arc::new(Recorder::new()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = Thread { shared, number, recorder: Arc::clone(&recorder) };
    std::thread::Builder::new().name(format!("tandem-bench-{number}")).spawn(move || {
        let news = thread.shared.news.clone();
        let told = runtime.block_on(thread.run()).map_or_else(News::Failed, |()| News::Ended);
        // Whoever listened may have gone.
        let _ = news.send(told);
    })?;
    Ok(recorder)
}

#[derive(Debug)]
struct Thread {
    shared: Shared,
    number: usize,
    recorder: Arc<Recorder>,
}

impl Thread {
    async fn run(self) -> Result<(), Refusal> {
        let Shared { plan, stop, news, .. } = &self.shared;
        let mut places = Vec::new();
        for connection in (self.number as u64..u64::from(plan.connections)).step_by(plan.threads) {
            places.extend(self.connect(connection).await?);
        }
        let alarm = Alarm::new().map_err(|error| Refusal::broken(format!("no timer can be had: {error}")))?;
        let _ = news.send(News::Connected);
        let mut window = self.shared.window.clone();
        // Gone: another thread failed.
        let Some(window) = window.wait_for(Option::is_some).await.ok().and_then(|window| *window) else {
            return Ok(());
        };
        let (pace, tickets) = self.pace(window, alarm);
        if tickets.is_none() {
            // All threads at once. In an open loop each request has its time.
            tokio::time::sleep_until(window.start.into()).await;
        }
        let mut running = JoinSet::new();
        for place in places {
            running.spawn(place.run(pace.clone(), window, Arc::clone(&self.recorder)));
        }
        let patience = async {
            tokio::select! {
                () = tokio::time::sleep_until(window.end.into()) => {}
                () = stop.cancelled() => {}
            }
            tokio::time::sleep(plan.timeout).await;
        };
        let ring = async {
            match &tickets {
                Some(tickets) => tickets.ring().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = async { while running.join_next().await.is_some() {} } => {}
            () = patience => {}
            failed = ring => if let Err(error) = failed {
                return Err(Refusal::broken(format!("the timer failed: {error}")));
            },
        }
        // Who interrupted it does not ask for the rest.
        self.recorder.gave_up(if stop.is_cancelled() { 0 } else { pace.unsent() });
        Ok(())
    }

    /// The places of one connection.
    async fn connect(&self, connection: u64) -> Result<Vec<Place>, Refusal> {
        let Shared { plan, target, values, .. } = &self.shared;
        let lines = Lines::connect(plan, target).await?;
        let places = u64::from(plan.in_flight);
        let first = connection * places;
        let mut watched = match plan.workload {
            Workload::Watch => watching::watch(lines.place().await?, Keys::of(plan), first, places).await?,
            _ => Vec::new(),
        }
        .into_iter();
        let mut connected = Vec::new();
        for place in first..first + places {
            let asking = Asking::new(plan, values, place);
            connected.push(Place { door: lines.place().await?, asking, watched: watched.next() });
        }
        Ok(connected)
    }

    fn pace(&self, window: Window, alarm: Alarm) -> (Pace, Option<Arc<Tickets>>) {
        let Shared { plan, stop, .. } = &self.shared;
        match plan.rate {
            None => (Pace::Closed { end: window.end, stop: stop.clone() }, None),
            Some(rate) => {
                let times = Times { window, rate, thread: self.number as u64, threads: plan.threads as u64 };
                let tickets = Arc::new(Tickets::new(times, alarm, stop.clone()));
                (Pace::Open(Arc::clone(&tickets)), Some(tickets))
            }
        }
    }
}
