//! Serving as Tandem does it, with nothing around it: the first core accepts and hands connections out in turn.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

// As in `src/app/serving.rs` and `src/limits.rs`.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const STREAMS_MAX: u32 = 256;
const PARSER_BYTES: usize = 64 << 10;

type Connection = (std::net::TcpStream, Router);

/// Serves both until standard input ends.
pub fn serve(rest: Router, grpc: Router) {
    let count = std::thread::available_parallelism().unwrap().get();
    let cores: Vec<_> = (0..count).map(|_| core()).collect();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let doors = [bind().await, bind().await];
            let [http, grpc_address] = doors.each_ref().map(|door| door.local_addr().unwrap());
            println!("REST http://{http}, gRPC {grpc_address}");
            std::io::stdout().flush().unwrap();
            let [http, grpc_door] = doors;
            tokio::join!(accept(http, rest, &cores), accept(grpc_door, grpc, &cores));
        });
    });
    // Whoever started this holds the other end: it ends with them.
    let _ = std::io::stdin().read(&mut [0]);
}

async fn bind() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

async fn accept(listener: TcpListener, routes: Router, cores: &[mpsc::UnboundedSender<Connection>]) {
    for turn in 0_usize.. {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        cores[turn % cores.len()].send((stream.into_std().unwrap(), routes.clone())).unwrap();
    }
}

fn core() -> mpsc::UnboundedSender<Connection> {
    let (connections, mut received) = mpsc::unbounded_channel::<Connection>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            while let Some((stream, routes)) = received.recv().await {
                tokio::spawn(async move {
                    let stream = TokioIo::new(TcpStream::from_std(stream).unwrap());
                    // A client that leaves is no fault.
                    let _ = builder().serve_connection(stream, TowerToHyperService::new(routes)).await;
                });
            }
        });
    });
    connections
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(PARSER_BYTES).half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
