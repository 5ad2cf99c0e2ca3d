"""A generated client in another language: generates Python code from proto/, starts a server, and uses every RPC.

Run by .ci/run with the packages of requirements.txt; TANDEM_BINARY names the server's binary.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def generate(directory):
    """What a user does: protoc over the public schema."""
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto/tandem").rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    assert protoc.main([*arguments, f"-I{well_known}", *files]) == 0, "protoc failed"
    sys.path.insert(0, directory)


def start(data):
    """A server on free ports; the banner says which."""
    binary = pathlib.Path(os.environ.get("TANDEM_BINARY", ROOT / "target/release/tandem")).resolve()
    free = "127.0.0.1:0"
    command = [str(binary), "--data-dir", data, "--http-address", free, "--grpc-address", free, "--ops-address", free]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=data)
    lines = []
    for line in server.stdout:
        lines.append(line)
        found = re.search(r"gRPC (?:http://)?([\d.]+:\d+)", line)
        if found:
            return server, found.group(1)
    raise SystemExit("the server printed no address: " + "".join(lines))


def reason_of(error):
    """The reason in google.rpc.ErrorInfo."""
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "tandem", info
            return info.reason, dict(info.metadata)
    raise AssertionError(f"no ErrorInfo in {error}")


def refused(call, reason, code):
    """The call fails with this reason on this code."""
    try:
        call()
    except grpc.RpcError as error:
        found, metadata = reason_of(error)
        assert found == reason and error.code() == code, (found, error.code())
        assert error.details().startswith(f"{reason}: "), error.details()
        return metadata
    raise AssertionError(f"expected {reason}")


def scenario(address):
    """Every RPC, with its answers and its refusals."""
    from tandem.v1 import entry_pb2, kv_service_pb2, kv_service_pb2_grpc, write_pb2

    with grpc.insecure_channel(address) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        assert status.status == health_pb2.HealthCheckResponse.SERVING
        store = kv_service_pb2_grpc.KvServiceStub(channel)

        put = store.Put(write_pb2.PutRequest(key=b"greeting", value=b"hello", content_type="text/plain"))
        assert put.created and put.version == 1 and put.result.durability == write_pb2.DURABILITY_FSYNCED
        got = store.Get(write_pb2.GetRequest(key=b"greeting"))
        assert got.entry.value == b"hello" and got.entry.revision == put.result.revision
        assert got.store_revision >= got.entry.revision

        unless_exists = [entry_pb2.Condition(exists=False)]
        again = write_pb2.PutRequest(key=b"greeting", value=b"x", conditions=unless_exists)
        metadata = refused(lambda: store.Put(again), "KEY_EXISTS", grpc.StatusCode.ALREADY_EXISTS)
        assert metadata["current_revision"] == str(put.result.revision) and metadata["outcome"] == "NOT_APPLIED"

        swap = [entry_pb2.Condition(revision=put.result.revision)]
        swapped = store.Put(write_pb2.PutRequest(key=b"greeting", value=b"bye", conditions=swap, return_previous=True))
        assert swapped.previous.value == b"hello" and swapped.version == 2
        refused(
            lambda: store.Put(write_pb2.PutRequest(key=b"greeting", value=b"x", conditions=swap)),
            "CONDITION_FAILED",
            grpc.StatusCode.ABORTED,
        )

        counted = store.Increment(write_pb2.IncrementRequest(key=b"visits", by=5, initial=10))
        assert counted.value == 15 and counted.created
        assert store.Increment(write_pb2.IncrementRequest(key=b"visits")).value == 16
        refused(
            lambda: store.Increment(write_pb2.IncrementRequest(key=b"greeting")),
            "NOT_AN_INTEGER",
            grpc.StatusCode.FAILED_PRECONDITION,
        )

        ttl = entry_pb2.Expiry()
        ttl.ttl.FromSeconds(3600)
        touched = store.Touch(write_pb2.TouchRequest(key=b"greeting", expiry=ttl))
        assert touched.version == 2 and touched.result.revision > swapped.result.revision
        assert store.Get(write_pb2.GetRequest(key=b"greeting")).entry.HasField("expire_time")

        options = write_pb2.WriteOptions(request_id="retry-1")
        first = store.Put(write_pb2.PutRequest(key=b"once", value=b"1", options=options))
        second = store.Put(write_pb2.PutRequest(key=b"once", value=b"1", options=options))
        assert second.result.replayed and second.result.revision == first.result.revision
        refused(
            lambda: store.Put(write_pb2.PutRequest(key=b"once", value=b"2", options=options)),
            "REQUEST_ID_REUSED",
            grpc.StatusCode.INVALID_ARGUMENT,
        )

        removed = store.Delete(write_pb2.DeleteRequest(key=b"greeting", return_previous=True))
        assert removed.previous.value == b"bye"
        metadata = refused(
            lambda: store.Get(write_pb2.GetRequest(key=b"greeting")), "KEY_NOT_FOUND", grpc.StatusCode.NOT_FOUND
        )
        assert int(metadata["store_revision"]) >= removed.result.revision
        batch = store.BatchGet(kv_service_pb2.BatchGetRequest(keys=[b"visits", b"greeting"]))
        assert batch.results[0].entry.value == b"16" and batch.results[1].absent
        page = store.List(kv_service_pb2.ListRequest(range=entry_pb2.KeyRange(all=True)))
        assert [entry.key for entry in page.entries] == [b"once", b"visits"]
        assert store.Count(kv_service_pb2.CountRequest(range=entry_pb2.KeyRange(prefix=b"v"))).count == 1
        add = write_pb2.WriteOp(increment=write_pb2.IncrementRequest(key=b"visits", by=4))
        read = write_pb2.TxnOp(get=write_pb2.GetRequest(key=b"visits"))
        guard = write_pb2.Guard(key=b"visits", conditions=[entry_pb2.Condition(exists=True)])
        txn = store.Txn(write_pb2.TxnRequest(guards=[guard], then=[read, write_pb2.TxnOp(write=add)]))
        assert txn.succeeded and txn.results[0].get.entry.value == b"16" and txn.results[1].increment.value == 20
        written = store.BatchWrite(write_pb2.BatchWriteRequest(writes=[add]))
        assert written.results[0].increment.value == 24
        refused(lambda: store.Get(write_pb2.GetRequest()), "KEY_EMPTY", grpc.StatusCode.INVALID_ARGUMENT)


def main():
    with tempfile.TemporaryDirectory() as generated, tempfile.TemporaryDirectory() as data:
        generate(generated)
        server, address = start(data)
        try:
            started = time.monotonic()
            scenario(address)
            print(f"python scenario passed in {time.monotonic() - started:.2f} s")
        finally:
            server.terminate()
            code = server.wait(timeout=30)
        assert code == 0, f"the server exited with {code}"


if __name__ == "__main__":
    main()
