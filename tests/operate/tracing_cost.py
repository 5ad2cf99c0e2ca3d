"""What tracing one request in a hundred costs: CPU of the server for each request, with and without a collector, in turns.

Not a test and not part of .ci/run, since it is a figure of a machine:
    TANDEM_BINARY=target/release/tandem python tests/operate/tracing_cost.py [ROUNDS] [SECONDS]
needs `wrk` (Debian) and the packages of requirements.txt. Other work on the machine moves throughput more than CPU per request,
and moves both kinds of rounds alike, since they alternate."""

import os
import pathlib
import re
import statistics
import sys
import tempfile

from collector import collector
from conftest import Server, run, tool

PUT = """local body = string.rep("x", 256)
function init() math.randomseed(os.time()) end
function request()
  return wrk.format("PUT", string.format("/v1/kv/%032d", math.random(100000)), nil, body)
end
"""
GET = """function init() math.randomseed(os.time()) end
function request()
  return wrk.format("GET", string.format("/v1/kv/%032d", math.random(100000)))
end
"""
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process):
    """User and system time of a process, all threads."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def cost_us(directory, name, script, seconds):
    """CPU microseconds of the server for each request of one round, and requests a second."""
    data = directory / name
    data.mkdir()
    server = Server(data, directory / f"{name}.log")
    (directory / "script.lua").write_text(script)
    command = [tool("wrk"), "--threads=1", "--connections=64", "--script", directory / "script.lua"]
    try:
        assert run(*command, "--duration=1s", f"http://{server.http}").returncode == 0
        before = cpu_seconds(server.process)
        done = run(*command, f"--duration={seconds}s", f"http://{server.http}")
        spent = cpu_seconds(server.process) - before
    finally:
        server.stop()
    requests = int(re.search(r"(\d+) requests in", done.stdout).group(1))
    return spent / requests * 1e6, requests / seconds


def main(rounds=5, seconds=10):
    """Both kinds in turns, for reads and for durable writes."""
    os.environ["TANDEM__TELEMETRY__TRACE_SAMPLE_RATIO"] = "0.01"
    with collector() as (endpoint, received), tempfile.TemporaryDirectory(dir=".") as directory:
        settings = {"off": "", "1%": endpoint}
        for kind, script in (("GET", GET), ("PUT", PUT)):
            found = {name: [] for name in settings}
            for number in range(rounds):
                # Neither is always first.
                for name in list(settings)[:: 1 if number % 2 else -1]:
                    os.environ |= {"TANDEM__TELEMETRY__OTLP_ENDPOINT": settings[name], "TANDEM__SNAPSHOT__INTERVAL": "0ms"}
                    found[name].append(cost_us(pathlib.Path(directory).resolve(), f"{kind}-{name}-{number}", script, seconds))
            for name, figures in found.items():
                costs = [cost for cost, _ in figures]
                rates = [rate for _, rate in figures]
                each = " ".join(f"{cost:.2f}" for cost in costs)
                print(f"{kind} {name:>3}: {statistics.median(costs):6.2f} µs CPU a request ({each}), {statistics.median(rates):,.0f} requests/s")
            off, on = (statistics.median([cost for cost, _ in found[name]]) for name in settings)
            print(f"{kind}: tracing 1% costs {(on / off - 1) * 100:+.1f}% CPU a request")
        print(f"the collector got {received['exports']} exports, {received['bytes']:,} bytes")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
