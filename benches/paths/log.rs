//! A record's way into a frame and back.

use std::hint::black_box;

use bytes::Bytes;
use prost::Message as _;
use tandem::{
    disk::frame,
    pb::{
        self,
        storage::{LogRecord, log_record::Command},
    },
};

use super::{Path, VALUE, key};

const HEAD: frame::Head = frame::Head { kind: frame::Kind::Record, sequence: 3, index: 1_000, synced_index: 990 };

fn record() -> LogRecord {
    let put = pb::PutRequest { key: key(1), value: Bytes::from_static(&VALUE), ..Default::default() };
    LogRecord { command: Some(Command::Put(put)), ..Default::default() }
}

pub fn encode() -> Path {
    let (record, mut body, mut buffer) = (record(), Vec::new(), Vec::new());
    Box::new(move || {
        body.clear();
        buffer.clear();
        record.encode(&mut body).unwrap();
        let prefix = frame::prefix(HEAD.index, 1, 1_800_000_000_000);
        frame::encode(&mut buffer, HEAD, &[&prefix, black_box(&body)]);
        black_box(&buffer);
    })
}

pub fn decode() -> Path {
    let mut buffer = Vec::new();
    let prefix = frame::prefix(HEAD.index, 1, 1_800_000_000_000);
    frame::encode(&mut buffer, HEAD, &[&prefix, &record().encode_to_vec()]);
    Box::new(move || {
        let frame = frame::decode(black_box(&buffer), HEAD.sequence).unwrap();
        black_box(LogRecord::decode(frame.payload).unwrap());
    })
}
