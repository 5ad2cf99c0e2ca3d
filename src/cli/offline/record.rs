//! A record of the log, an answer and an event, each in one line for people.

use crate::{
    cli::client::table::{escape, preview},
    notation::show_duration,
    pb::{
        self, EventKind,
        expiry::Kind as ExpiryKind,
        key_range,
        storage::{RememberedAnswer, log_record::Command, remembered_answer::Effect},
        txn_op, write_op,
    },
};

/// Keys that are named of a record that has many.
const KEYS_SHOWN: usize = 3;

/// The name of a command, as the schema has it.
pub fn name(command: &Command) -> &'static str {
    match command {
        Command::Put(_) => "put",
        Command::Delete(_) => "delete",
        Command::Increment(_) => "increment",
        Command::Touch(_) => "touch",
        Command::BatchWrite(_) => "batch_write",
        Command::Txn(_) => "txn",
        Command::DeleteRange(_) => "delete_range",
        Command::Open(_) => "open",
        Command::Expire(_) => "expire",
        Command::Evict(_) => "evict",
        Command::Settings(_) => "settings",
    }
}

/// What a command does.
pub fn describe(command: &Command) -> String {
    match command {
        Command::Put(put) => describe_put(put),
        Command::Delete(delete) => escape(&delete.key),
        Command::Increment(increment) => describe_increment(increment),
        Command::Touch(touch) => format!("{}{}", escape(&touch.key), describe_expiry(touch.expiry.as_ref())),
        Command::BatchWrite(batch) => {
            several(batch.writes.len(), batch.writes.iter().filter_map(|write| write.op.as_ref()).map(write_key))
        }
        Command::Txn(txn) => {
            let keys = txn.then.iter().chain(&txn.otherwise).filter_map(|op| op.op.as_ref()).filter_map(txn_key);
            format!("{} guards, {}", txn.guards.len(), several(txn.then.len() + txn.otherwise.len(), keys))
        }
        Command::DeleteRange(range) => {
            format!("{}, {} keys at most", describe_range(range.range.as_ref()), range.max_keys)
        }
        Command::Open(open) => {
            format!("term {}, offset {}, apply version {}", open.term, open.offset, open.apply_version)
        }
        Command::Expire(expire) => several(expire.keys.len(), expire.keys.iter().map(|expired| &expired.key)),
        Command::Evict(evict) => several(evict.keys.len(), evict.keys.iter().map(|evicted| &evicted.key)),
        Command::Settings(settings) => format!(
            "answers kept for {} ms, {} ids, {} bytes at most",
            settings.request_window_ms, settings.request_window_ids, settings.request_window_bytes
        ),
    }
}

fn describe_put(put: &pb::PutRequest) -> String {
    let expiry = describe_expiry(put.expiry.as_ref());
    let when = if put.conditions.is_empty() { "" } else { ", on conditions" };
    format!("{} = {} ({} bytes{expiry}{when})", escape(&put.key), preview(&put.value), put.value.len())
}

fn describe_increment(increment: &pb::IncrementRequest) -> String {
    let expiry = describe_expiry(increment.expiry.as_ref());
    format!("{} by {}{expiry}", escape(&increment.key), increment.by.unwrap_or(1))
}

fn describe_expiry(expiry: Option<&pb::Expiry>) -> String {
    match expiry.and_then(|expiry| expiry.kind.as_ref()) {
        None => String::new(),
        Some(ExpiryKind::Ttl(ttl)) => {
            let ttl = std::time::Duration::try_from(*ttl).map_or_else(|_| "?".to_owned(), show_duration);
            format!(", ttl {ttl}")
        }
        Some(ExpiryKind::ExpireTime(time)) => format!(", until {time}"),
        Some(ExpiryKind::Keep(_)) => ", expiry kept".to_owned(),
        Some(ExpiryKind::Never(_)) => ", never expires".to_owned(),
    }
}

fn describe_range(range: Option<&pb::KeyRange>) -> String {
    match range.and_then(|range| range.kind.as_ref()) {
        None => "no range".to_owned(),
        Some(key_range::Kind::Prefix(prefix)) => format!("prefix {}", escape(prefix)),
        Some(key_range::Kind::Span(span)) => format!("from {} to {}", escape(&span.start), escape(&span.end)),
        Some(key_range::Kind::All(_)) => "all".to_owned(),
        Some(key_range::Kind::Key(key)) => format!("key {}", escape(key)),
    }
}

fn write_key(op: &write_op::Op) -> &[u8] {
    match op {
        write_op::Op::Put(put) => &put.key,
        write_op::Op::Delete(delete) => &delete.key,
        write_op::Op::Increment(increment) => &increment.key,
        write_op::Op::Touch(touch) => &touch.key,
    }
}

fn txn_key(op: &txn_op::Op) -> Option<&[u8]> {
    match op {
        txn_op::Op::Write(write) => write.op.as_ref().map(write_key),
        txn_op::Op::Get(get) => Some(&get.key),
    }
}

fn several(count: usize, keys: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    let shown: Vec<_> = keys.take(KEYS_SHOWN).map(|key| escape(key.as_ref())).collect();
    let more = if count > shown.len() { ", …" } else { "" };
    format!("{count}: {}{more}", shown.join(", "))
}

/// What an event tells.
pub fn event(event: &pb::Event) -> [String; 3] {
    let kind = match event.kind() {
        EventKind::Put => "put",
        EventKind::Touch => "touch",
        EventKind::Delete => "delete",
        EventKind::Expire => "expire",
        EventKind::Evict => "evict",
        EventKind::Unspecified => "unspecified",
    };
    let Some(entry) = &event.entry else { return ["?".into(), kind.into(), String::new()] };
    let what = match event.kind() {
        EventKind::Put => format!("{} = {}", escape(&entry.key), preview(&entry.value)),
        _ => escape(&entry.key),
    };
    [entry.revision.to_string(), kind.to_owned(), what]
}

/// What a remembered answer says was done.
pub fn effect(answer: &RememberedAnswer) -> String {
    match &answer.effect {
        None => "nothing".to_owned(),
        Some(Effect::One(one)) if one.reason == 0 => format!("done, version {}", one.version),
        Some(Effect::One(one)) => format!("refused: {}", one.reason().as_str_name().trim_start_matches("REASON_")),
        Some(Effect::Batch(batch)) => format!("{} writes", batch.outcomes.len()),
        Some(Effect::Txn(txn)) => match (&txn.aborted, txn.succeeded) {
            (Some(aborted), _) => format!("aborted by operation {}", aborted.operation),
            (None, true) => "guards held".to_owned(),
            (None, false) => "guards did not hold".to_owned(),
        },
    }
}
