//! How a command reaches its server.

use std::time::Duration;

use clap::Args;
use tonic::transport::{Channel, Endpoint};

use super::{
    arguments::time_span,
    failure::{Failure, Result, innermost},
};
use crate::{
    limits,
    pb::{admin::admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient},
};

/// Flags of every command that asks for keys.
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

/// Names the ops listener where no flag does.
const OPS_ENDPOINT: &str = "TANDEM_OPS_ENDPOINT";
const OPS_ENDPOINT_DEFAULT: &str = "http://127.0.0.1:16702";
/// How long a connection may take where no flag says so.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// After so much silence the peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

impl ConnectionFlags {
    /// Connects.
    pub async fn connect(&self) -> Result<Store> {
        // The time runs until an answer begins: a stream may last.
        let endpoint = prepare(&self.endpoint, self.timeout)?.timeout(self.timeout);
        let channel = reach(&self.endpoint, endpoint, "TANDEM_ENDPOINT").await?;
        Ok(KvServiceClient::new(channel).max_decoding_message_size(limits::CLIENT_ANSWER_BYTES_MAX))
    }
}

/// Flags of every command that asks the ops listener.
#[derive(Args, Clone, Debug)]
pub struct OpsFlags {
    /// The server's ops listener.
    #[arg(
        long,
        env = OPS_ENDPOINT,
        value_name = "URL",
        default_value = OPS_ENDPOINT_DEFAULT,
        help_heading = "Connection"
    )]
    endpoint: String,
    /// How long to wait for a connection. The work itself may last.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time_span, help_heading = "Connection")]
    timeout: Duration,
}

impl OpsFlags {
    /// Of a command that asks the ops listener only if it is told to: this one, or that of the environment, or the usual one.
    pub fn of(endpoint: Option<String>) -> Self {
        let endpoint = endpoint.or_else(|| std::env::var(OPS_ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty()));
        Self { endpoint: endpoint.unwrap_or_else(|| OPS_ENDPOINT_DEFAULT.to_owned()), timeout: CONNECT_MAX }
    }

    /// Connects.
    pub async fn connect(&self) -> Result<AdminServiceClient<Channel>> {
        let endpoint = prepare(&self.endpoint, self.timeout)?;
        Ok(AdminServiceClient::new(reach(&self.endpoint, endpoint, OPS_ENDPOINT).await?))
    }
}

fn prepare(endpoint: &str, timeout: Duration) -> Result<Endpoint> {
    let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
    if !url.starts_with("http://") {
        return Err(Failure::usage(format!("--endpoint {endpoint}: only http:// is spoken")));
    }
    let endpoint = Endpoint::from_shared(url)
        .map_err(|_| Failure::usage(format!("--endpoint {endpoint}: write it as http://HOST:PORT")))?;
    let endpoint = endpoint.connect_timeout(timeout).tcp_nodelay(true);
    Ok(endpoint.http2_keep_alive_interval(KEEPALIVE).keep_alive_while_idle(true))
}

async fn reach(named: &str, endpoint: Endpoint, variable: &str) -> Result<Channel> {
    endpoint.connect().await.map_err(|error| {
        Failure::unavailable(format!(
            "UNAVAILABLE: {named} cannot be reached: {}: start a server there, or name another by --endpoint or {variable}",
            innermost(&error)
        ))
    })
}
