//! One serving thread for each core, each with a runtime of its own: a request never changes threads, and nothing is
//! stolen. Measured here on two cores against the work-stealing runtime: half as many requests again over gRPC, about
//! as many over REST.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{engine::completion::Mailbox, metrics::Metrics};

/// How often each core measures how long what is ready waits there.
const MEASURE_LAG_EVERY: Duration = Duration::from_millis(500);

/// Something to start on a core: it spawns what it needs there.
type Job = Box<dyn FnOnce() + Send>;

/// The threads. Dropped, they end when what runs on them has let go.
#[derive(Debug)]
pub struct Cores {
    cores: Arc<Vec<Core>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Core {
    jobs: mpsc::UnboundedSender<Job>,
    connections: AtomicUsize,
}

/// Hands connections out evenly.
#[derive(Clone, Debug)]
pub struct Spreader(Arc<Vec<Core>>);

/// A connection's place on its core, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    cores: Arc<Vec<Core>>,
    core: usize,
}

impl Cores {
    /// Starts `count` threads; 0: one for each core.
    pub fn start(count: usize, metrics: &Metrics) -> io::Result<Self> {
        let count = if count == 0 { std::thread::available_parallelism()?.get() } else { count };
        let mut cores = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let (jobs, mut received) = mpsc::unbounded_channel::<Job>();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            metrics.watch_core(number, runtime.metrics());
            let metrics = metrics.clone();
            let thread = std::thread::Builder::new().name(format!("tandem-core-{number}")).spawn(move || {
                runtime.block_on(async {
                    // Answers of the log come to this core in one batch for each group.
                    Mailbox::install_on_this_core();
                    tokio::spawn(measure_lag(metrics));
                    while let Some(job) = received.recv().await {
                        job();
                    }
                });
            })?;
            cores.push(Core { jobs, connections: AtomicUsize::new(0) });
            threads.push(thread);
        }
        Ok(Self { cores: Arc::new(cores), threads })
    }

    /// Hands connections out evenly.
    pub fn spreader(&self) -> Spreader {
        Spreader(Arc::clone(&self.cores))
    }

    /// Spawns a task on the first core.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(first) = self.cores.first() {
            let job: Job = Box::new(move || drop(tokio::spawn(task)));
            // Fails only if the thread died, which its panic has reported.
            let _ = first.jobs.send(job);
        }
    }

    /// Waits for the threads, once nothing holds a spreader any more. What still runs on them is dropped.
    pub fn join(self) {
        drop(self.cores);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Waits for its turn like everything else on this core, and tells how long that took.
async fn measure_lag(metrics: Metrics) {
    loop {
        tokio::time::sleep(MEASURE_LAG_EVERY).await;
        let ready = Instant::now();
        tokio::task::yield_now().await;
        metrics.core_lagged(ready.elapsed());
    }
}

impl Spreader {
    /// Runs `job` on the core with the fewest connections.
    pub fn place(&self, job: impl FnOnce(Seat) + Send + 'static) {
        let fewest = (0..self.0.len()).min_by_key(|core| self.0[*core].connections.load(Ordering::Relaxed));
        let Some(core) = fewest else { return };
        self.0[core].connections.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { cores: Arc::clone(&self.0), core };
        let _ = self.0[core].jobs.send(Box::new(move || job(seat)));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.cores[self.core].connections.fetch_sub(1, Ordering::Relaxed);
    }
}
