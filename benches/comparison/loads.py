"""The load generators. Each loads one server for a while and tells how many requests were answered in which time."""

import csv
import functools
import io
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

VALUE = b"x" * 256
# As wrk's script, `tandem bench`, the loader of `benches/bare` and Redis' benchmark name keys: 32 bytes.
KEY = b"bench/%026d"
REDIS_KEY = "bench/" + "0" * 14 + "__rand_int__"
GRACE_SECONDS = 60
COLD_STARTS = 5


@dataclass
class Measured:
    """One measurement: requests a second, the server's CPU time for each, and, where it is known, how long requests took."""

    rate: float
    cpu_us: float | None = None
    p999_ms: float | None = None

    @property
    def mean_us(self):
        return 1e6 / self.rate


class Failed(Exception):
    """A load that did not come through whole."""


def run(command, seconds):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=seconds + GRACE_SECONDS
    )
    if done.returncode:
        raise Failed(f"{command[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def loaded(server, load):
    """Runs a load, which tells requests and seconds; counts the server's CPU time meanwhile."""
    os.sync()
    before = server.cpu_seconds
    requests, seconds = load()
    return Measured(requests / seconds, (server.cpu_seconds - before) / requests * 1e6)


def wrk(method, connections=64):
    """Closed loop over HTTP/1.1, keys by chance."""
    def measure(server, context):
        def load():
            script = Path(__file__).with_name("requests.lua")
            text = run(["wrk", "-t1", f"-c{connections}", f"-d{context.seconds}s", "-s", script, f"http://{server.http}",
                        "--", method, context.keys_of(server)], context.seconds)
            requests, microseconds, refused, broken = map(int, re.search(r"measured (\d+) (\d+) (\d+) (\d+)", text).groups())
            if refused or broken:
                raise Failed(f"{server.name}: {refused} requests refused, {broken} broken")
            return requests, microseconds / 1e6
        return loaded(server, load)
    measure.needs = ["wrk"]
    return measure


def h2load(path, message, connections=16, streams=16, keys=1):
    """Closed loop over HTTP/2: one gRPC message, over and over. A call counts as so many requests."""
    def measure(server, context):
        def load():
            body = context.work / "message.grpc"
            body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
            text = run(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{context.seconds}", "-d", body,
                        "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{server.grpc}/{path}"],
                       context.seconds)
            done, failed = map(int, re.search(r"(\d+) succeeded, (\d+) failed", text).groups())
            if failed or not done:
                raise Failed(f"{server.name}: {done} calls went well, {failed} failed")
            return done * keys, context.seconds
        return loaded(server, load)
    measure.needs = ["h2load"]
    return measure


def redis_benchmark(command, clients=64, pipeline=1):
    """Closed loop, keys by chance. It wants a number of requests and not a time: the last rate says how many."""
    def measure(server, context):
        words = command + [REDIS_KEY] + ([VALUE.decode()] if command == ["SET"] else [])
        estimate = context.estimates.setdefault((command[0], pipeline, server), 0)

        def times(requests):
            text = run(["redis-benchmark", "-p", server.port, "-c", clients, "-P", pipeline, "-r", context.keys_of(server),
                        "-n", requests, "--csv", *words], 10 * context.seconds)
            return float(list(csv.reader(io.StringIO(text)))[-1][1])

        if not estimate:
            estimate = times(20_000 * pipeline)
        requests = int(estimate * context.seconds)

        def load():
            rate = times(requests)
            context.estimates[(command[0], pipeline, server)] = rate
            return requests, requests / rate
        return loaded(server, load)
    measure.needs = ["redis-benchmark"]
    return measure


def tandem_bench(workload, protocol, connections, in_flight=1, at_half_peak=False):
    """Tandem's own generator, keys by chance. At half of Tandem's peak rate: an open loop, whose latencies count from the
    times at which requests were due."""
    def measure(server, context):
        address = server.http if protocol == "rest" else server.grpc

        def result(*more):
            text = run([context.options.tandem, "bench", "--workload", workload, "--protocol", protocol, "--endpoint",
                        f"http://{address}", "--connections", connections, "--in-flight", in_flight, "--no-load", "--keys",
                        context.keys_of(server), "--duration", f"{context.seconds}s", "--output", "json", *more],
                       context.seconds)
            found = json.loads(text)
            if found["errors"]:
                raise Failed(f"{server.name}: {found['errors']}")
            return found

        if at_half_peak:
            rate = context.half_peaks[workload, protocol]
            return Measured(rate, p999_ms=result("--rate", rate)["latency_us"]["p99.9"] / 1e3)

        def load():
            found = result("--warmup", "0s")
            return found["requests"], found["elapsed_s"]
        return loaded(server, load)
    measure.needs = ["tandem bench"]
    measure.half_peak_of = (workload, protocol, connections, in_flight) if at_half_peak else None
    return measure


def synced_writes(record_bytes, keys=1):
    """The disk alone: records written one after another into a file that is ready, each synced."""
    def measure(_, context):
        path, size = context.work / "disk", 64 << 20
        with open(path, "wb", buffering=0) as file:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        os.sync()
        record, times, at = os.urandom(record_bytes), [], 0
        descriptor = os.open(path, os.O_WRONLY)
        try:
            end = time.perf_counter() + context.seconds
            while not times or time.perf_counter() < end:
                begun = time.perf_counter()
                os.pwrite(descriptor, record, at)
                os.fdatasync(descriptor)
                times.append(time.perf_counter() - begun)
                at = 0 if at + 2 * record_bytes > size else at + record_bytes
        finally:
            os.close(descriptor)
            path.unlink()
        times.sort()
        return Measured(keys * len(times) / sum(times), p999_ms=times[int(0.999 * (len(times) - 1))] * 1e3)
    measure.needs = []
    return measure


def cold_start(_, context):
    """From the start of the process until it is ready, on an empty directory."""
    times = []
    for _ in range(COLD_STARTS):
        begun = time.perf_counter()
        server = context.start("tandem")
        try:
            server.until(server.is_ready, pause=0.001)
            times.append(time.perf_counter() - begun)
        finally:
            server.stop()
    return Measured(1 / statistics.median(times))


cold_start.needs = []


def missing(load, tandem):
    """Programs that a load needs and that are not there."""
    return [program for program in load.needs if not there(program, tandem)]


@functools.cache
def there(program, tandem):
    if program == "tandem bench":
        return subprocess.run([tandem, "bench", "--help"], capture_output=True, timeout=30).returncode == 0
    return shutil.which(program) is not None


def field(number, content):
    """A length-delimited field of a protobuf message."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content
