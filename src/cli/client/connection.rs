//! How a command reaches its server.

use std::time::Duration;

use clap::Args;
use tonic::transport::{Channel, Endpoint};

use super::{
    arguments::time_span,
    failure::{Failure, Result, innermost},
};
use crate::{limits, pb::kv_service_client::KvServiceClient};

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub struct ConnectionFlags {
    /// The server's gRPC listener.
    #[arg(
        long,
        env = "TANDEM_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:16701",
        help_heading = "Connection"
    )]
    endpoint: String,
    /// How long to wait for an answer.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time_span, help_heading = "Connection")]
    timeout: Duration,
}

/// The store at the other end.
pub type Store = KvServiceClient<Channel>;

/// After so much silence the peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

impl ConnectionFlags {
    /// Connects.
    pub async fn connect(&self) -> Result<Store> {
        let channel = self.prepare()?.connect().await.map_err(|error| {
            Failure::unavailable(format!(
                "UNAVAILABLE: {} cannot be reached: {}: start a server there, or name another by --endpoint or \
                 TANDEM_ENDPOINT",
                self.endpoint,
                innermost(&error)
            ))
        })?;
        Ok(KvServiceClient::new(channel).max_decoding_message_size(limits::CLIENT_ANSWER_BYTES_MAX))
    }

    fn prepare(&self) -> Result<Endpoint> {
        let url =
            if self.endpoint.contains("://") { self.endpoint.clone() } else { format!("http://{}", self.endpoint) };
        if !url.starts_with("http://") {
            return Err(Failure::usage(format!("--endpoint {}: only http:// is spoken", self.endpoint)));
        }
        let endpoint = Endpoint::from_shared(url)
            .map_err(|_| Failure::usage(format!("--endpoint {}: write it as http://HOST:PORT", self.endpoint)))?;
        // The time runs until an answer begins: a stream may last.
        let endpoint = endpoint.connect_timeout(self.timeout).timeout(self.timeout).tcp_nodelay(true);
        Ok(endpoint.http2_keep_alive_interval(KEEPALIVE).keep_alive_while_idle(true))
    }
}
