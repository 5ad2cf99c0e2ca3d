"""What the scenario leaves out, as another implementation of protobuf sees it: health, counters, expiries, retries,
batches, transactions, pages and counts."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tandem.v1 import entry_pb2, kv_service_pb2, kv_service_pb2_grpc, write_pb2


def check(channel, refused):
    """Each of them once, with its answer or its refusal."""
    status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert status.status == health_pb2.HealthCheckResponse.SERVING, status
    store = kv_service_pb2_grpc.KvServiceStub(channel)
    put = store.Put(write_pb2.PutRequest(key=b"greeting", value=b"hello"))

    counted = store.Increment(write_pb2.IncrementRequest(key=b"visits", by=5, initial=10))
    assert counted.value == 15 and counted.created, counted
    assert store.Increment(write_pb2.IncrementRequest(key=b"visits")).value == 16
    refused(
        lambda: store.Increment(write_pb2.IncrementRequest(key=b"greeting")),
        grpc.StatusCode.FAILED_PRECONDITION,
        "NOT_AN_INTEGER",
    )

    ttl = entry_pb2.Expiry()
    ttl.ttl.FromSeconds(3600)
    touched = store.Touch(write_pb2.TouchRequest(key=b"greeting", expiry=ttl))
    assert touched.version == 1 and touched.result.revision > put.result.revision, touched
    assert store.Get(write_pb2.GetRequest(key=b"greeting")).entry.HasField("expire_time")

    options = write_pb2.WriteOptions(request_id="retry-1")
    once = write_pb2.PutRequest(key=b"once", value=b"1", options=options)
    first, second = store.Put(once), store.Put(once)
    assert second.result.replayed and second.result.revision == first.result.revision, second
    refused(
        lambda: store.Put(write_pb2.PutRequest(key=b"once", value=b"2", options=options)),
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
    )

    batch = store.BatchGet(kv_service_pb2.BatchGetRequest(keys=[b"visits", b"nothing"]))
    assert batch.results[0].entry.value == b"16" and batch.results[1].absent, batch
    span = entry_pb2.KeyRange(span=entry_pb2.Span(start=b"once", end=b"visits\0"))
    page = store.List(kv_service_pb2.ListRequest(range=span, start_after=b"vegetable"))
    assert [entry.key for entry in page.entries] == [b"vegetable/leek", b"visits"], page
    assert store.Count(kv_service_pb2.CountRequest(range=span)).count == 3

    add = write_pb2.WriteOp(increment=write_pb2.IncrementRequest(key=b"visits", by=4))
    read = write_pb2.TxnOp(get=write_pb2.GetRequest(key=b"visits"))
    guard = write_pb2.Guard(key=b"visits", conditions=[entry_pb2.Condition(exists=True)])
    txn = store.Txn(write_pb2.TxnRequest(guards=[guard], then=[read, write_pb2.TxnOp(write=add)]))
    assert txn.succeeded and txn.results[0].get.entry.value == b"16" and txn.results[1].increment.value == 20, txn
    written = store.BatchWrite(write_pb2.BatchWriteRequest(writes=[add]))
    assert written.results[0].increment.value == 24, written

    removed = store.DeleteRange(write_pb2.DeleteRangeRequest(range=entry_pb2.KeyRange(prefix=b"v"), max_keys=1))
    assert removed.deleted == 1 and not removed.complete, removed
    assert store.Count(kv_service_pb2.CountRequest(range=entry_pb2.KeyRange(prefix=b"v"))).count == 1
    refused(lambda: store.Get(write_pb2.GetRequest()), grpc.StatusCode.INVALID_ARGUMENT, "KEY_EMPTY")
