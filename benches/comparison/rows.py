"""What is measured, and what it is held against: the rows of the table."""

from dataclasses import dataclass
from typing import Callable

from .loads import KEY, VALUE, cold_start, field, h2load, redis_benchmark, synced_writes, tandem_bench, wrk

KEYS = 100_000
BATCH = 100

GET, PUT = field(1, KEY % 7), field(1, KEY % 7) + field(2, VALUE)
# Writes and reads of a batch; etcd's messages happen to have the same field numbers as ours.
BATCH_KEYS = [KEY % number for number in range(BATCH)]
BATCH_GET = b"".join(field(1, key) for key in BATCH_KEYS)
BATCH_PUT = b"".join(field(1, field(1, field(1, key) + field(2, VALUE))) for key in BATCH_KEYS)
SERVICE = "tandem.v1.KvService"
# What the log writes around a request: a frame's head, three fields, and the command's own tag and length.
AROUND_BYTES = 32 + 27 + 4

GRPC_GET, GRPC_PUT = h2load(f"{SERVICE}/Get", GET), h2load(f"{SERVICE}/Put", PUT)
ONE_PUT = h2load(f"{SERVICE}/Put", PUT, connections=1, streams=1)
# 16 × 2 calls of 100 keys in flight, and as many of Redis: 100 clients with 32 commands each.
GRPC_BATCH_GET = h2load(f"{SERVICE}/BatchGet", BATCH_GET, streams=2, keys=BATCH)
GRPC_BATCH_PUT = h2load(f"{SERVICE}/BatchWrite", BATCH_PUT, streams=2, keys=BATCH)
ETCD_GET = h2load("etcdserverpb.KV/Range", GET)
ETCD_PUT = h2load("etcdserverpb.KV/Put", PUT)
ETCD_PUT_64 = h2load("etcdserverpb.KV/Put", PUT, connections=64, streams=1)
REDIS_GET, REDIS_SET = redis_benchmark(["GET"]), redis_benchmark(["SET"])
REDIS_PIPE_GET = redis_benchmark(["GET"], clients=100, pipeline=32)
REDIS_PIPE_SET = redis_benchmark(["SET"], clients=100, pipeline=32)
# One key over and over is what h2load can send; this sends any of them.
SPREAD_GET, SPREAD_PUT = (tandem_bench(workload, "grpc", 16, 16) for workload in ("get", "put"))
HALF_GET, HALF_PUT = (tandem_bench(workload, "rest", 64, at_half_peak=True) for workload in ("get", "put"))
SYNC = synced_writes(-(-(len(PUT) + AROUND_BYTES) // 8) * 8)
SEQUENTIAL = synced_writes(1 << 20, keys=(1 << 20) * BATCH // (len(BATCH_PUT) + AROUND_BYTES))


@dataclass(frozen=True)
class Measure:
    """A load on one of the servers, by its name; `None`: the disk alone."""

    server: str | None
    load: Callable

    def __call__(self, servers, context):
        return self.load(servers.get(self.server), context)


@dataclass(frozen=True)
class Against:
    """Tandem's measure beside others': `ratio` makes one number of one round, which is to be `at_least` or `at_most` so much."""

    label: str
    others: tuple[Measure, ...]
    at_least: float | None = None
    at_most: float | None = None
    ratio: Callable | None = None
    target: str | None = None

    def of(self, own, others):
        return self.ratio(own, *others) if self.ratio else own.rate / others[0].rate

    def meets(self, ratio):
        return None if self.at_least is self.at_most is None else (
            ratio >= self.at_least if self.at_least is not None else ratio <= self.at_most)

    @property
    def goal(self):
        if self.target:
            return self.target
        if self.at_least is None and self.at_most is None:
            return "—"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    own: Measure
    against: tuple[Against, ...]
    unit: str = "/s"


def beside(label, server, load, at_least=None):
    return Against(label, (Measure(server, load),), at_least)


def time_ratio(own, other):
    return own.mean_us / other.mean_us


ROWS = (
    Row("rest-get", "REST GET, 64 connections", Measure("tandem", wrk_get := wrk("GET")), (
        beside("bare axum", "bare", wrk_get, 0.9),
        beside("Redis GET", "redis-always", REDIS_GET, 1.1),
    )),
    Row("grpc-get", "gRPC Get, 16 × 16", Measure("tandem", GRPC_GET), (
        beside("bare tonic", "bare", GRPC_GET, 0.9),
        beside("etcd Range", "etcd", ETCD_GET, 2),
    )),
    Row("rest-put", "REST PUT, fsynced, 64 connections", Measure("tandem", wrk_put := wrk("PUT")), (
        beside("bare axum", "bare", wrk_put, 0.75),
        beside("Redis SET, always", "redis-always", REDIS_SET, 1.5),
        beside("Redis SET, everysec", "redis-everysec", REDIS_SET),
        beside("etcd Put", "etcd", ETCD_PUT_64, 5),
    )),
    Row("grpc-put", "gRPC Put, fsynced, 16 × 16", Measure("tandem", GRPC_PUT), (
        beside("bare tonic", "bare", GRPC_PUT, 0.8),
        beside("etcd Put", "etcd", ETCD_PUT, 4.5),
    )),
    Row("grpc-put-one", "gRPC Put, fsynced, one at a time", Measure("tandem", ONE_PUT), (
        Against("one fdatasync + one bare round trip", (Measure(None, SYNC), Measure("bare", ONE_PUT)), at_most=1.3,
                ratio=lambda own, sync, bare: own.mean_us / (sync.mean_us + bare.mean_us), target="≤ 1.3 × the time"),
    ), unit="µs"),
    Row("batch-get", "BatchGet, 100 keys", Measure("tandem", GRPC_BATCH_GET), (
        beside("Redis GET, pipeline 32", "redis-always", REDIS_PIPE_GET, 2),
    ), unit=" keys/s"),
    Row("batch-put", "BatchWrite, fsynced, 100 keys", Measure("tandem", GRPC_BATCH_PUT), (
        beside("Redis SET, always, pipeline 32", "redis-always", REDIS_PIPE_SET, 2),
        Against("or: the disk, 1 MiB a sync", (Measure(None, SEQUENTIAL),), 0.8),
    ), unit=" keys/s"),
    Row("half-get", "REST GET at half of its peak rate, p99.9", Measure("tandem", HALF_GET), (
        Against("bare axum", (Measure("bare", HALF_GET),), at_most=1, target="≤ 1.3 × + 0.2 ms",
                ratio=lambda own, bare: own.p999_ms / (1.3 * bare.p999_ms + 0.2)),
    ), unit="ms"),
    Row("half-put", "REST PUT, fsynced, at half of its peak rate, p99.9", Measure("tandem", HALF_PUT), (
        Against("fdatasync alone, p99.9", (Measure(None, SYNC),), at_most=1, target="≤ 2.5 × + 1 ms",
                ratio=lambda own, sync: own.p999_ms / (2.5 * sync.p999_ms + 1)),
    ), unit="ms"),
    Row("spread-get", "gRPC Get, 16 × 16, keys by chance", Measure("tandem", SPREAD_GET), (
        beside("bare tonic", "bare", SPREAD_GET),
    )),
    Row("spread-put", "gRPC Put, fsynced, 16 × 16, keys by chance", Measure("tandem", SPREAD_PUT), (
        beside("bare tonic", "bare", SPREAD_PUT),
    )),
    Row("keys-get", "REST GET at 10⁷ keys", Measure("large", wrk_get), (
        Against("at 10⁴ keys", (Measure("small", wrk_get),), at_most=1.3, ratio=time_ratio, target="≤ 1.3 × the time"),
    )),
    Row("keys-put", "REST PUT, fsynced, at 10⁷ keys", Measure("large", wrk_put), (
        Against("at 10⁴ keys", (Measure("small", wrk_put),), at_most=1.3, ratio=time_ratio, target="≤ 1.3 × the time"),
    )),
    Row("cold-start", "cold start to ready, empty directory", Measure(None, cold_start), (
        Against("—", (), at_most=1, ratio=lambda own: own.mean_us / 50_000, target="≤ 50 ms"),
    ), unit="µs"),
    Row("metrics-rest-get", "REST GET, metrics on", Measure("tandem", wrk_get), (
        beside("metrics off", "silent", wrk_get, 0.97),
    )),
    Row("metrics-grpc-get", "gRPC Get, metrics on", Measure("tandem", GRPC_GET), (
        beside("metrics off", "silent", GRPC_GET, 0.97),
    )),
    Row("metrics-grpc-put", "gRPC Put, metrics on", Measure("tandem", GRPC_PUT), (
        beside("metrics off", "silent", GRPC_PUT, 0.97),
    )),
)
