//! Either door, as the places of a load use it.

use super::{
    ask::{Ask, Done, Refusal},
    grpc::{self, Grpc},
    line::Target,
    options::Protocol,
    plan::Plan,
    rest::{self, Rest},
};

/// A connection, or what makes one for each place.
#[derive(Clone, Debug)]
pub enum Lines {
    Rest(rest::Lines),
    Grpc(grpc::Lines),
}

/// One place's way to the server.
#[derive(Debug)]
pub enum Door {
    Rest(Rest),
    Grpc(Grpc),
}

impl Lines {
    /// Connects, where places share a connection.
    pub async fn connect(plan: &Plan, target: &Target) -> Result<Self, Refusal> {
        Ok(match plan.protocol {
            Protocol::Rest => Self::Rest(rest::Lines::connect(plan, target).await?),
            Protocol::Grpc => Self::Grpc(grpc::Lines::connect(plan, target).await?),
        })
    }

    /// A way for one place.
    pub async fn place(&self) -> Result<Door, Refusal> {
        Ok(match self.clone() {
            Self::Rest(lines) => Door::Rest(lines.place().await?),
            Self::Grpc(lines) => Door::Grpc(lines.place().await),
        })
    }
}

impl Door {
    /// Sends a request and reads its answer.
    pub async fn perform(&mut self, ask: Ask) -> Result<Done, Refusal> {
        match self {
            Self::Rest(rest) => rest.perform(ask).await,
            Self::Grpc(grpc) => grpc.perform(ask).await,
        }
    }

    /// Connects again; whether that went well.
    pub async fn renew(&mut self) -> bool {
        match self {
            Self::Rest(rest) => rest.renew().await,
            Self::Grpc(grpc) => grpc.renew().await,
        }
    }
}
