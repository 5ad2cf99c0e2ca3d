//! What the REST door shares with pages of other origins, by name: browsers hide every header that is not listed.

use http::Method;

use crate::{
    api::cors::{Shared, Sharing},
    config::Cors,
};

const SHARED: Shared = Shared {
    methods: &[Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::POST, Method::DELETE],
    request_headers: &[
        "accept",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "kv-timing",
        "last-event-id",
        "traceparent",
        "tracestate",
    ],
    exposed: &[
        "allow",
        "etag",
        "kv-create-revision",
        "kv-durability",
        "kv-expires-at",
        "kv-previous-revision",
        "kv-reason",
        "kv-replayed",
        "kv-revision",
        "kv-store-revision",
        "kv-trace-id",
        "kv-version",
        "link",
        "retry-after",
        "server-timing",
    ],
};

/// The door's rule.
pub fn of_rest(cors: &Cors) -> Sharing {
    Sharing::new(cors, SHARED)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_header_of_this_door_is_shared() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/rest");
        let mut seen = 0;
        for file in fs::read_dir(directory).unwrap() {
            let Ok(text) = fs::read_to_string(file.unwrap().path()) else { continue };
            for part in text.split("HeaderName::from_static(\"kv-").skip(1) {
                let name = format!("kv-{}", part.split('"').next().unwrap());
                let shared = SHARED.exposed.contains(&name.as_str()) || SHARED.request_headers.contains(&name.as_str());
                assert!(shared, "{name}");
                seen += 1;
            }
        }
        assert!(seen > 8, "{seen}: the headers are named in another way now");
    }
}
