//! Each case through both doors of one server, on keys that differ in their first letter alone; the answers are compared.

use tandem::pb::{self, condition::Kind as Is, expiry::Kind as Expires};

use crate::{
    cases::{delete, expires, increment, put, touch, ttl_ms, when},
    doors::{Answered, Door},
    support,
};

/// One write of the script.
#[derive(Clone, Debug)]
enum Write {
    Put(pb::PutRequest),
    Delete(pb::DeleteRequest),
    Increment(pb::IncrementRequest),
    Touch(pb::TouchRequest),
}

/// Created, version, previous value, number, replayed, durability.
type Done = (bool, u64, Option<Vec<u8>>, i64, bool, i32);

/// An answer without what differs by nature: revisions and what depends on them.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    answer: Answered<Done>,
    then: Result<(Vec<u8>, String, u64, bool), String>,
}

async fn play(door: &Door, prefix: &str, write: &Write) -> Seen {
    let name = |key: &bytes::Bytes| -> bytes::Bytes {
        // The empty key stays empty.
        if key.is_empty() { key.clone() } else { [prefix.as_bytes(), key].concat().into() }
    };
    let options = |options: &Option<pb::WriteOptions>| {
        options.clone().map(|options| pb::WriteOptions {
            request_id: if options.request_id.is_empty() {
                String::new()
            } else {
                format!("{prefix}{}", options.request_id)
            },
            ..options
        })
    };
    let value = |entry: Option<pb::Entry>| entry.map(|entry| entry.value.to_vec());
    let result = |result: Option<pb::WriteResult>| {
        let result = result.unwrap_or_default();
        (result.replayed, result.durability)
    };
    let (key, answer) = match write.clone() {
        Write::Put(request) => {
            let request = pb::PutRequest { key: name(&request.key), options: options(&request.options), ..request };
            let key = request.key.clone();
            (
                key,
                door.put(request).await.map(|done| {
                    let (replayed, durability) = result(done.result);
                    (done.created, done.version, value(done.previous), 0, replayed, durability)
                }),
            )
        }
        Write::Delete(request) => {
            let request = pb::DeleteRequest { key: name(&request.key), options: options(&request.options), ..request };
            let key = request.key.clone();
            (
                key,
                door.delete(request).await.map(|done| {
                    let (replayed, durability) = result(done.result);
                    (false, 0, value(done.previous), 0, replayed, durability)
                }),
            )
        }
        Write::Increment(request) => {
            let request =
                pb::IncrementRequest { key: name(&request.key), options: options(&request.options), ..request };
            let key = request.key.clone();
            (
                key,
                door.increment(request).await.map(|done| {
                    let (replayed, durability) = result(done.result);
                    // REST tells created by the version, which validation leaves out.
                    (false, 0, None, done.value, replayed, durability)
                }),
            )
        }
        Write::Touch(request) => {
            let request = pb::TouchRequest { key: name(&request.key), options: options(&request.options), ..request };
            let key = request.key.clone();
            (
                key,
                door.touch(request).await.map(|done| {
                    let (replayed, durability) = result(done.result);
                    (false, 0, value(done.previous), 0, replayed, durability)
                }),
            )
        }
    };
    let answer = answer.map_err(|mut refused| {
        refused.current_revision = refused.current_revision.map(|revision| revision.min(1));
        refused.store_revision = refused.store_revision.map(|revision| revision.min(1));
        refused
    });
    let then = match door.get(&key).await {
        Ok(found) => {
            let entry = found.entry.unwrap();
            Ok((entry.value.to_vec(), entry.content_type, entry.version, entry.expire_time.is_some()))
        }
        Err(refused) => Err(refused.reason),
    };
    Seen { answer, then }
}

fn script() -> Vec<Write> {
    let id = |id: &str| Some(pb::WriteOptions { request_id: id.into(), ..Default::default() });
    let only = || Some(pb::WriteOptions { validate_only: true, ..Default::default() });
    let long = "k".repeat(1_024);
    let puts = [
        put("a", "1"),
        put("a", "2"),
        pb::PutRequest { return_previous: true, ..put("a", "3") },
        pb::PutRequest { content_type: "text/css".into(), ..put("a", "4") },
        pb::PutRequest { conditions: when(Is::Exists(false)), ..put("a", "x") },
        pb::PutRequest { conditions: when(Is::Exists(false)), ..put("b", "1") },
        pb::PutRequest { conditions: when(Is::Exists(true)), ..put("c", "x") },
        pb::PutRequest { conditions: when(Is::Revision(999_999)), ..put("a", "x") },
        pb::PutRequest { conditions: when(Is::Version(4)), ..put("a", "5") },
        pb::PutRequest { conditions: when(Is::Version(0)), ..put("a", "x") },
        pb::PutRequest { conditions: [when(Is::Exists(true)), when(Is::Version(0))].concat(), ..put("a", "x") },
        pb::PutRequest { expiry: expires(ttl_ms(0)), ..put("a", "x") },
        pb::PutRequest { expiry: expires(ttl_ms(100_000)), ..put("a", "6") },
        pb::PutRequest { expiry: expires(Expires::Keep(true)), ..put("a", "7") },
        pb::PutRequest { options: only(), ..put("d", "x") },
        pb::PutRequest { options: id("once"), ..put("e", "1") },
        pb::PutRequest { options: id("once"), ..put("e", "1") },
        pb::PutRequest { options: id("once"), ..put("e", "2") },
        pb::PutRequest { options: id(&"i".repeat(200)), ..put("e", "2") },
        put("", "x"),
        put(&long, "x"),
        put("f", &"v".repeat(1 << 20)),
        put("f", &"v".repeat((1 << 20) + 1)),
        put("f", &"v".repeat(9 << 20)),
    ];
    let mut script: Vec<_> = puts.into_iter().map(Write::Put).collect();
    script.extend([
        Write::Increment(increment("n", 5)),
        Write::Increment(pb::IncrementRequest { by: None, ..increment("n", 0) }),
        Write::Increment(pb::IncrementRequest { options: only(), ..increment("n", 9) }),
        Write::Increment(increment("a", i64::MAX)),
        Write::Increment(increment("b", 1)),
        Write::Put(put("t", "text")),
        Write::Increment(increment("t", 1)),
        Write::Touch(touch("a", Expires::Never(true))),
        Write::Touch(touch("a", ttl_ms(50_000))),
        Write::Touch(touch("nothing", ttl_ms(50_000))),
        Write::Touch(pb::TouchRequest { expiry: None, ..touch("a", ttl_ms(1)) }),
        Write::Touch(pb::TouchRequest { return_previous: true, ..touch("a", ttl_ms(50_000)) }),
        Write::Delete(delete("nothing")),
        Write::Delete(pb::DeleteRequest { conditions: when(Is::Version(99)), ..delete("a") }),
        Write::Delete(pb::DeleteRequest { options: only(), ..delete("a") }),
        Write::Delete(pb::DeleteRequest { return_previous: true, ..delete("a") }),
        Write::Delete(delete("a")),
        Write::Delete(delete("")),
    ]);
    script
}

#[tokio::test]
async fn both_doors_give_the_same_answers_and_the_same_reasons() {
    let data = tempfile::tempdir().unwrap();
    let server = support::Server::start(data.path());
    let (grpc, rest) = (Door::over_grpc(&server.grpc).await, Door::over_rest(&server.http));
    for write in script() {
        let over_grpc = play(&grpc, "g", &write).await;
        let over_rest = play(&rest, "r", &write).await;
        let shown = format!("{write:?}");
        assert_eq!(over_grpc, over_rest, "{}", &shown[..shown.len().min(300)]);
    }
}
