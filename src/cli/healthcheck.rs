//! `tandem healthcheck`: one request to `/readyz`, for containers that have no curl.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the server at `endpoint` (`http://HOST:PORT` or `HOST:PORT`) is ready.
pub fn ready(endpoint: &str) -> Result<(), String> {
    let host = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let address = host.to_socket_addrs().map_err(|error| error.to_string())?.next().ok_or("no such address")?;
    let mut stream =
        TcpStream::connect_timeout(&reachable(address), PATIENCE).map_err(|error| format!("not reachable: {error}"))?;
    let asked = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| write!(stream, "GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
    asked.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).map_err(|error| format!("no answer: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("no HTTP answer", |(_, body)| body.trim());
    Err(format!("not ready: {body}"))
}

/// A server that listens on every address is reached on this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        _ => address,
    }
}
