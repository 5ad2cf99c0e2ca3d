//! The schema's messages as the REST door's JSON, there and back.

use base64::prelude::*;
use bytes::Bytes;
use tandem::pb::{self, EventKind};

pub fn condition_json(condition: &pb::Condition) -> serde_json::Value {
    use pb::condition::Kind;
    use serde_json::json;
    match condition.kind.as_ref().unwrap() {
        Kind::Exists(exists) => json!({ "exists": exists }),
        Kind::Revision(revision) => json!({ "revision": revision }),
        Kind::Version(version) => json!({ "version": version }),
        Kind::Value(value) => json!({ "value_base64": BASE64_STANDARD.encode(value) }),
    }
}

pub fn write_json(write: &pb::WriteOp) -> serde_json::Value {
    use pb::write_op::Op;
    use serde_json::{Map, json};
    let mut fields = Map::new();
    let common = |fields: &mut Map<_, _>,
                  key: &Bytes,
                  conditions: &[pb::Condition],
                  previous: bool,
                  expiry: Option<&pb::Expiry>| {
        fields.insert("key_base64".into(), BASE64_STANDARD.encode(key).into());
        fields.insert("conditions".into(), conditions.iter().map(condition_json).collect());
        fields.insert("return_previous".into(), previous.into());
        use pb::expiry::Kind;
        let expiry = match expiry.and_then(|expiry| expiry.kind.as_ref()) {
            None => return,
            Some(Kind::Ttl(ttl)) => {
                json!({"ttl": format!("{}ms", ttl.seconds * 1_000 + i64::from(ttl.nanos) / 1_000_000)})
            }
            Some(Kind::ExpireTime(time)) => {
                json!({"expire_time": jiff::Timestamp::new(time.seconds, time.nanos).unwrap().to_string()})
            }
            Some(Kind::Keep(keep)) => json!({ "keep": keep }),
            Some(Kind::Never(never)) => json!({ "never": never }),
        };
        fields.insert("expiry".into(), expiry);
    };
    let name = match write.op.as_ref().unwrap() {
        Op::Put(put) => {
            common(&mut fields, &put.key, &put.conditions, put.return_previous, put.expiry.as_ref());
            fields.insert("value_base64".into(), BASE64_STANDARD.encode(&put.value).into());
            fields.insert("content_type".into(), put.content_type.clone().into());
            "put"
        }
        Op::Delete(delete) => {
            common(&mut fields, &delete.key, &delete.conditions, delete.return_previous, None);
            "delete"
        }
        Op::Increment(increment) => {
            common(
                &mut fields,
                &increment.key,
                &increment.conditions,
                increment.return_previous,
                increment.expiry.as_ref(),
            );
            if let Some(by) = increment.by {
                fields.insert("by".into(), by.to_string().into());
            }
            fields.insert("initial".into(), increment.initial.into());
            "increment"
        }
        Op::Touch(touch) => {
            common(&mut fields, &touch.key, &touch.conditions, touch.return_previous, touch.expiry.as_ref());
            "touch"
        }
    };
    json!({ name: fields })
}

pub fn results_from_json(results: &serde_json::Value) -> Vec<pb::OpResult> {
    use pb::op_result::Kind;
    let one = |result: &serde_json::Value| {
        let (name, done) = result.as_object().unwrap().iter().next().unwrap();
        let created = done["created"] == true;
        let version = done["version"].as_u64().unwrap_or(0);
        let previous = done.get("previous").map(entry_from_json);
        let result = None;
        match name.as_str() {
            "put" => Kind::Put(pb::PutResponse { result, created, version, previous }),
            "delete" => Kind::Delete(pb::DeleteResponse { result, previous }),
            "increment" => {
                let value = done["value"].as_str().unwrap().parse().unwrap();
                Kind::Increment(pb::IncrementResponse { result, created, version, previous, value })
            }
            "touch" => Kind::Touch(pb::TouchResponse { result, version, previous }),
            "get" => {
                use pb::read_result::Kind as Read;
                let kind = match done.get("entry") {
                    Some(entry) => Read::Entry(entry_from_json(entry)),
                    None if done["absent"] == true => Read::Absent(true),
                    None => Read::Unprocessed(done["unprocessed"] == true),
                };
                Kind::Get(pb::ReadResult { kind: Some(kind) })
            }
            "error" => Kind::Error(pb::OpError {
                reason: done["reason"].as_str().unwrap().into(),
                message: done["message"].as_str().unwrap().into(),
            }),
            other => panic!("no such result: {other}"),
        }
    };
    results.as_array().unwrap().iter().map(|result| pb::OpResult { kind: Some(one(result)) }).collect()
}

pub fn entry_from_json(json: &serde_json::Value) -> pb::Entry {
    let bytes = |name: &str| match &json[format!("{name}_base64")] {
        serde_json::Value::String(text) => Bytes::from(BASE64_STANDARD.decode(text).unwrap()),
        // Without values, as asked.
        _ if name == "value" && json.get(name).is_none() => Bytes::new(),
        _ => Bytes::from(json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()),
    };
    let time = |name: &str| {
        let time: jiff::Timestamp = json[name].as_str()?.parse().unwrap();
        Some(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
    };
    pb::Entry {
        key: bytes("key"),
        value: bytes("value"),
        revision: json["revision"].as_u64().unwrap(),
        // What was removed has none of these.
        create_revision: json["create_revision"].as_u64().unwrap_or(0),
        version: json["version"].as_u64().unwrap_or(0),
        expire_time: time("expire_time"),
        update_time: time("update_time"),
        content_type: json["content_type"].as_str().unwrap_or_default().to_owned(),
    }
}

pub fn message_from_json(json: &serde_json::Value) -> pb::WatchResponse {
    let event = |event: &serde_json::Value| pb::Event {
        kind: match event["kind"].as_str().unwrap() {
            "put" => EventKind::Put,
            "touch" => EventKind::Touch,
            "delete" => EventKind::Delete,
            "expire" => EventKind::Expire,
            "evict" => EventKind::Evict,
            other => panic!("no kind: {other}"),
        }
        .into(),
        entry: event.get("entry").map(entry_from_json),
        previous: event.get("previous").map(entry_from_json),
    };
    let flag = |name: &str| json.get(name).is_some_and(|flag| flag == true);
    pb::WatchResponse {
        revision: json["revision"].as_u64().unwrap(),
        events: json["events"].as_array().map(|events| events.iter().map(event).collect()).unwrap_or_default(),
        partial: flag("partial"),
        synced: flag("synced"),
        reset: flag("reset"),
    }
}
