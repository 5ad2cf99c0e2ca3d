//! The last slow requests, for operators.

use std::time::UNIX_EPOCH;

use super::Admin;
use crate::{
    error::{Error, Result},
    metrics::Operation,
    model::{duration_to_pb, timestamp_from_ms},
    pb::admin::{SlowRequest, SlowRequestsRequest, SlowRequestsResponse},
    service::{Call, slow},
};

impl Admin {
    /// The last slow requests, newest first.
    pub fn slow_requests(&self, call: &Call, request: SlowRequestsRequest) -> Result<SlowRequestsResponse> {
        let answer = self.check_allowed().and_then(|()| {
            let limit = match request.limit {
                0 => usize::MAX,
                limit => usize::try_from(limit)
                    .map_err(|_| Error::invalid_field("limit", "`limit` is 0, for all that are kept, or more"))?,
            };
            let requests = self.service().slow_requests(limit).iter().map(slow_to_pb).collect();
            Ok(SlowRequestsResponse { requests })
        });
        self.service().counted(call, Operation::SlowRequests, answer)
    }
}

fn slow_to_pb(request: &slow::SlowRequest) -> SlowRequest {
    let since = request.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let phase = |name| {
        let phases = request.phases?.by_name();
        phases.into_iter().find_map(|(found, time)| (found == name).then(|| duration_to_pb(time)))
    };
    SlowRequest {
        time: Some(timestamp_from_ms(since.as_millis() as u64)),
        protocol: request.protocol.label().to_owned(),
        operation: Operation::label_of(request.operation).to_owned(),
        trace_id: request.trace.to_string(),
        total: Some(duration_to_pb(request.total)),
        queue: phase("queue"),
        commit: phase("commit"),
        sync: phase("sync"),
        apply: phase("apply"),
        reason: request.reason_name().to_owned(),
    }
}
