"""The scenario of ../README.md by the Python client, and then the RPCs that it leaves out."""

import os

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tandem.v1 import entry_pb2, kv_service_pb2, kv_service_pb2_grpc, watch_pb2, write_pb2

import remaining_rpcs

DEADLINE_S = 30


def refused(call, code, reason, **metadata):
    """Checks a refusal whole; hands back all of its metadata."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (reason, error.code())
        assert error.details().startswith(f"{reason}: "), error.details()
        info = error_details_pb2.ErrorInfo()
        found = [info for detail in rpc_status.from_call(error).details if detail.Unpack(info)]
        assert len(found) == 1 and info.reason == reason and info.domain == "tandem", (found, info)
        assert metadata.items() <= info.metadata.items(), (metadata, info)
        return info.metadata
    raise AssertionError(f"expected {reason}")


def scenario(store):
    """Every step, in its order."""

    def put(key, value, *conditions, **fields):
        request = write_pb2.PutRequest(key=key, value=value, conditions=conditions, **fields)
        return store.Put(request, timeout=DEADLINE_S)

    fruit = entry_pb2.KeyRange(prefix=b"fruit/")

    # 1
    first = put(b"fruit/apple", b"red", content_type="text/plain")
    r1 = first.result.revision
    assert first.created and first.version == 1 and r1 > 0, first
    assert first.result.durability == write_pb2.DURABILITY_FSYNCED, first

    # 2
    absent = entry_pb2.Condition(exists=False)
    refused(
        lambda: put(b"fruit/apple", b"blue", absent),
        grpc.StatusCode.ALREADY_EXISTS,
        "KEY_EXISTS",
        current_revision=str(r1),
        outcome="NOT_APPLIED",
    )

    # 3
    at_r1 = entry_pb2.Condition(revision=r1)
    swapped = put(b"fruit/apple", b"green", at_r1, return_previous=True)
    r3 = swapped.result.revision
    assert not swapped.created and swapped.version == 2 and r3 > r1, swapped
    previous = swapped.previous
    assert (previous.value, previous.content_type) == (b"red", "text/plain"), previous
    assert (previous.revision, previous.version) == (r1, 1), previous

    # 4
    refused(
        lambda: put(b"fruit/apple", b"blue", at_r1),
        grpc.StatusCode.ABORTED,
        "CONDITION_FAILED",
        current_revision=str(r3),
        outcome="NOT_APPLIED",
    )

    # 5
    leek = put(b"vegetable/leek", b"white")
    last_key = put(b"fruit/\xff", b"")
    banana = put(b"fruit/banana", b"yellow")
    assert leek.created and last_key.created and banana.created
    r5, r5_before = banana.result.revision, last_key.result.revision

    # 6
    batches = list(store.Scan(kv_service_pb2.ScanRequest(range=fruit), timeout=DEADLINE_S))
    found = [
        (entry.key, entry.value, entry.revision, entry.create_revision, entry.version)
        for batch in batches
        for entry in batch.entries
    ]
    assert found == [
        (b"fruit/apple", b"green", r3, r1, 2),
        (b"fruit/banana", b"yellow", r5, r5, 1),
        (b"fruit/\xff", b"", r5_before, r5_before, 1),
    ], found
    assert all(batch.store_revision >= r5 for batch in batches), batches

    # 7
    watch = store.Watch(watch_pb2.WatchRequest(range=fruit, start_revision=r5), timeout=DEADLINE_S)
    changes = (message for message in watch if message.events)

    def next_change():
        message = next(changes)
        (event,) = message.events
        assert event.entry.revision == message.revision, message
        return event.kind, event.entry.key, event.entry.value, message.revision

    assert next_change() == (watch_pb2.EVENT_KIND_PUT, b"fruit/banana", b"yellow", r5)

    # 8
    gold = put(b"fruit/apple", b"gold")
    purple = put(b"vegetable/leek", b"purple")
    assert not gold.created and gold.version == 3 and not purple.created and purple.version == 2
    r8 = gold.result.revision

    # 9
    removal = write_pb2.DeleteRequest(key=b"fruit/apple", return_previous=True)
    removed = store.Delete(removal, timeout=DEADLINE_S)
    r9, previous = removed.result.revision, removed.previous
    assert r9 > r8, removed
    assert (previous.value, previous.revision) == (b"gold", r8), previous
    assert (previous.create_revision, previous.version) == (r1, 3), previous

    # 10
    assert next_change() == (watch_pb2.EVENT_KIND_PUT, b"fruit/apple", b"gold", r8)
    assert next_change() == (watch_pb2.EVENT_KIND_DELETE, b"fruit/apple", b"", r9)
    watch.cancel()

    # 11
    metadata = refused(
        lambda: store.Get(write_pb2.GetRequest(key=b"fruit/apple"), timeout=DEADLINE_S),
        grpc.StatusCode.NOT_FOUND,
        "KEY_NOT_FOUND",
    )
    assert int(metadata["store_revision"]) >= r9, metadata


if __name__ == "__main__":
    with grpc.insecure_channel(os.environ["TANDEM_GRPC_ADDRESS"]) as channel:
        scenario(kv_service_pb2_grpc.KvServiceStub(channel))
        remaining_rpcs.check(channel, refused)
    print("python: 11 steps and the remaining RPCs as expected")
