//! Connections to a server: made, shared by the places that use them, and made again when they broke.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::{Authority, Scheme, Uri};
use hyper::{
    body::Body,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex};

use super::ask::Refusal;
use crate::cli::client::failure::{Failure, Result, innermost};

/// How long to wait before a server that cannot be reached is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// What a connection and a stream may hold before we take it: much, so that no answer waits for a window.
const WINDOW_BYTES: u32 = 16 << 20;

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Target {
    authority: Authority,
    timeout: Duration,
}

impl Target {
    /// `http://HOST:PORT` or `HOST:PORT`.
    pub fn parse(endpoint: &str, timeout: Duration) -> Result<Self> {
        let host = match endpoint.split_once("://") {
            Some(("http", host)) => host,
            Some(_) => return Err(Failure::usage(format!("--endpoint {endpoint}: only http:// is spoken"))),
            None => endpoint,
        };
        let authority = host.trim_end_matches('/').parse::<Authority>().ok().filter(|found| found.port().is_some());
        let authority =
            authority.ok_or_else(|| Failure::usage(format!("--endpoint {endpoint}: write it as http://HOST:PORT")))?;
        Ok(Self { authority, timeout })
    }

    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The address with a path, as HTTP/2 names it.
    pub fn uri(&self, path: http::uri::PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(self.authority.clone()));
        parts.path_and_query = Some(path);
        // All three are there.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Connects by HTTP/1.1.
    pub async fn http1<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static>(
        &self,
    ) -> Result<http1::SendRequest<B>, Refusal> {
        let (sender, connection) = http1::handshake(self.stream().await?).await.map_err(|error| self.lost(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Connects by HTTP/2.
    async fn http2<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static>(
        &self,
    ) -> Result<http2::SendRequest<B>, Refusal> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_connection_window_size(WINDOW_BYTES).initial_stream_window_size(WINDOW_BYTES);
        let (sender, connection) = builder.handshake(self.stream().await?).await.map_err(|error| self.lost(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn stream(&self) -> Result<TokioIo<TcpStream>, Refusal> {
        let connecting = TcpStream::connect(self.authority.as_str());
        let connected = tokio::time::timeout(self.timeout, connecting).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        stream.map(TokioIo::new).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> Refusal {
        Refusal::broken(format!("{} cannot be reached: {}", self.authority, innermost(error)))
    }
}

/// Waits a little, so that a server that is not there is not asked without end.
pub async fn pause() {
    tokio::time::sleep(TRY_AGAIN_AFTER).await;
}

/// One HTTP/2 connection, shared by the places that have requests in flight on it.
#[derive(Debug)]
pub struct Line<B> {
    target: Target,
    current: Mutex<http2::SendRequest<B>>,
}

impl<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static> Line<B> {
    /// Connects.
    pub async fn connect(target: &Target) -> Result<Arc<Self>, Refusal> {
        Ok(Arc::new(Self { current: Mutex::new(target.http2().await?), target: target.clone() }))
    }

    /// The connection as it is now.
    pub async fn sender(&self) -> http2::SendRequest<B> {
        self.current.lock().await.clone()
    }

    /// A connection in place of one that broke: one for all that shared it.
    pub async fn renewed(&self) -> Option<http2::SendRequest<B>> {
        let mut current = self.current.lock().await;
        if current.is_closed() {
            *current = self.target.http2().await.ok()?;
        }
        Some(current.clone())
    }
}
