//! Accepting and serving connections: the same for every door. Bounds what a connection may hold and how long it may be
//! silent, which the frameworks' own servers do not.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::cores::{Seat, Spreader};
use crate::{
    limits::{HEADER_PARSER_BYTES, Limits, REFUSALS_MAX},
    metrics::{Door, Metrics, Turned},
    service::Service,
};

/// What a peer may leave unacknowledged for this long loses its connection.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
/// Streams that a client may open and reset at once before they are refused.
const RESET_STREAMS_MAX: usize = 64;
/// A connection that is told to end and has no request running is dropped after this long.
const IDLE_PEER_PATIENCE: Duration = Duration::from_secs(3);
/// HTTP/2 windows: a request of the largest kind should not wait for a window update each 64 KiB. Measured against the
/// protocol's 64 KiB: `BatchWrite` of 33 kB 630,000 keys/s instead of 609,000, `Get` no different.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A refused connection is told why, and given this long to take it.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Ends connections: first kindly, then for good.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Accept no more, finish what is in flight.
    pub drain: CancellationToken,
    /// Drop what is left.
    pub abort: CancellationToken,
    /// Everything that serves.
    pub tasks: TaskTracker,
}

/// A door's listener and its bounds.
#[derive(Clone, Debug)]
pub struct Listening {
    limits: Arc<Limits>,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    ending: Ending,
    metrics: Metrics,
    door: Door,
}

impl Listening {
    /// Bounds of one listener.
    pub fn new(service: &Service, ending: &Ending, door: Door) -> Self {
        let limits = service.limits();
        Self {
            limits: Arc::new(limits.clone()),
            permits: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            ending: ending.clone(),
            metrics: service.metrics().clone(),
            door,
        }
    }

    /// Accepts until the drain begins, spreading connections over the cores. `answer` is called for each request.
    pub async fn accept<A, F, B>(self, listener: TcpListener, cores: Spreader, answer: A)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            let accepted = tokio::select! {
                () = self.ending.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted.and_then(prepare) {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end give some back.
                    self.metrics.turned_away(self.door, Turned::Accept);
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                self.metrics.turned_away(self.door, Turned::Limit);
                // Where HTTP/1 is spoken it can be told why.
                let telling = Arc::clone(&self.refusals).try_acquire_owned();
                if let (true, Ok(telling)) = (self.door != Door::Grpc, telling) {
                    self.ending.tasks.spawn(async move {
                        refuse(stream).await;
                        drop(telling);
                    });
                }
                continue;
            };
            let (listening, answer) = (self.clone(), answer.clone());
            let open = self.metrics.connected(self.door);
            let token = self.ending.tasks.token();
            cores.place(move |seat| {
                tokio::spawn(async move {
                    listening.serve(stream, seat, answer).await;
                    drop((permit, open, token));
                });
            });
        }
    }

    async fn serve<A, F, B>(self, stream: std::net::TcpStream, seat: Seat, answer: A)
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Registered with this core's own poller.
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let activity = Arc::new(Activity::default());
        let seen = Arc::clone(&activity);
        let service = service_fn(move |request| {
            let running = seen.begin();
            // Moved from hand to hand until its connection polls it: by its address.
            let answered = Box::pin(answer(request));
            async move {
                let response = answered.await;
                drop(running);
                Ok::<_, Infallible>(response)
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut events = self.events();
        loop {
            let event = tokio::select! {
                biased;
                // A connection that broke has nobody left to tell.
                _ = &mut connection => break,
                Some(event) = events.next() => event,
            };
            match event {
                Event::Drain => {
                    connection.as_mut().graceful_shutdown();
                    events.push(after(IDLE_PEER_PATIENCE, Event::Idle));
                }
                Event::Abort => break,
                // One that never sent a whole request: silent, or half a preface.
                Event::Silent if !activity.spoke() => break,
                // An HTTP/2 peer that does not answer the goodbye holds nothing up but itself.
                Event::Idle if activity.running() == 0 => break,
                Event::Idle => events.push(after(IDLE_PEER_PATIENCE, Event::Idle)),
                Event::Silent => {}
            }
        }
        drop(seat);
    }

    /// What may end a connection besides itself. Apart from it, so that none is looked at until it happens: a connection
    /// is polled for each of its requests.
    fn events(&self) -> FuturesUnordered<BoxFuture<'static, Event>> {
        let Ending { drain, abort, .. } = self.ending.clone();
        FuturesUnordered::from_iter([
            async move { drain.cancelled().await }.map(|()| Event::Drain).boxed(),
            async move { abort.cancelled().await }.map(|()| Event::Abort).boxed(),
            after(self.limits.header_timeout, Event::Silent),
        ])
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(HEADER_PARSER_BYTES.max(limits.header_bytes * 2))
            .half_close(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .max_header_list_size(HEADER_PARSER_BYTES as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout);
        builder
    }
}

/// What happens to a connection from outside.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It is to end kindly.
    Drain,
    /// It is to end now.
    Abort,
    /// It has had its time for a first request.
    Silent,
    /// It was told to end, and has had its time for what ran.
    Idle,
}

fn after(patience: Duration, event: Event) -> BoxFuture<'static, Event> {
    tokio::time::sleep(patience).map(move |()| event).boxed()
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Activity {
    spoke: AtomicBool,
    running: AtomicUsize,
}

/// A request that runs, until dropped.
struct Running(Arc<Activity>);

impl Activity {
    fn begin(self: &Arc<Self>) -> Running {
        self.spoke.store(true, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Whether a whole request ever came.
    fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sets a new connection up and takes it from the accepting core's poller.
fn prepare((stream, _): (TcpStream, SocketAddr)) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    stream.into_std()
}

async fn refuse(stream: std::net::TcpStream) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let said = async {
        stream.write_all(too_many(rand::random()).as_bytes()).await?;
        stream.shutdown().await?;
        // What is sent meanwhile is taken: a connection closed over unread bytes is reset, and its peer hears nothing.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(REFUSAL_PATIENCE, said).await;
}

/// What is said to a connection too many, over HTTP/1.
fn too_many(trace_id: u128) -> String {
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"Too Many Requests\",\"status\":429,\"reason\":\"OVERLOADED\",\
         \"detail\":\"the listener has as many connections as it may: close some, or retry later\",\
         \"trace_id\":\"{trace_id:032x}\"}}"
    );
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         kv-reason: OVERLOADED\r\nkv-trace-id: {trace_id:032x}\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_connection_is_well_formed() {
        let text = too_many(7);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["reason"], &body["trace_id"]), (&"OVERLOADED".into(), &format!("{:032x}", 7).into()));
        assert!(head.contains("kv-trace-id: 00000000000000000000000000000007\r\n"), "{head}");
    }
}
