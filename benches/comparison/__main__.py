"""Runs the rows of `benches/compare`, interleaved: every round measures everything once, each other round backwards."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import report
from .loads import REDIS_KEY, VALUE, Failed, missing, tandem_bench
from .rows import KEYS, ROWS
from .servers import Bare, Etcd, Redis, Tandem, etcd_binary, versions

SMALL_KEYS, LARGE_KEYS = 10_000, 10_000_000
FILL_SECONDS = 900


class Context:
    """What loads ask for: where to put files, how long to load, how many keys a server holds."""

    def __init__(self, options, work):
        self.options, self.work, self.seconds = options, work, options.seconds
        self.estimates, self.half_peaks, self.keys, self.started = {}, {}, {}, 0

    def keys_of(self, server):
        return self.keys.get(server, KEYS)

    def start(self, name):
        """A server of this name, empty."""
        self.started += 1
        directory = self.work / f"{self.started}-{name}"
        options = self.options
        match name:
            case "tandem":
                return Tandem(directory, options.tandem)
            case "silent":
                return Tandem(directory, options.tandem, {"TANDEM__TELEMETRY__METRICS": "false"})
            case "small" | "large":
                # Ten million keys make a log that would be followed by a snapshot; the other is treated alike.
                return Tandem(directory, options.tandem, {"TANDEM__SNAPSHOT__LOG_BYTES": "1024GiB"})
            case "bare":
                return Bare(directory, options.bare)
            case "redis-always" | "redis-everysec":
                return Redis(directory, name.removeprefix("redis-"))
            case "etcd":
                return Etcd(directory, etcd_binary())

    def fill(self, name, server):
        """Gives a server the keys that it is asked for."""
        keys = {"small": SMALL_KEYS, "large": self.options.large_keys}.get(name, KEYS)
        self.keys[server] = keys
        if isinstance(server, Tandem):
            command = [self.options.bare, "fill", server.grpc, str(keys)]
            subprocess.run(command, check=True, timeout=FILL_SECONDS)
        elif isinstance(server, Redis):
            # Ten times as many by chance leave hardly one out; not synced, since nobody waits for these.
            server.ask("CONFIG", "SET", "appendfsync", "no")
            subprocess.run(
                ["redis-benchmark", "-p", str(server.port), "-P", "32", "-r", str(keys), "-n", str(10 * keys), "-q",
                 "SET", REDIS_KEY, VALUE.decode()],
                check=True, timeout=FILL_SECONDS, stdout=subprocess.DEVNULL)
            server.ask("CONFIG", "SET", "appendfsync", server.fsync)


def reason_to_skip(measure, tandem):
    """Why something cannot be measured here."""
    absent = missing(measure.load, tandem)
    if (measure.server or "").startswith("redis") and not shutil.which("redis-server"):
        absent.append("redis-server")
    if measure.server == "etcd" and not etcd_binary():
        absent.append("etcd")
    return f"{', '.join(absent)} not installed" if absent else None


def plan(names, tandem):
    """Rows with those peers that are there; each measure once; what is left out, and why."""
    rows, measures, skipped = [], [], []
    for row in ROWS:
        if names and row.name not in names:
            continue
        if reason := reason_to_skip(row.own, tandem):
            skipped.append(f"{row.title}: {reason}")
            continue
        held = []
        for against in row.against:
            reasons = [reason for other in against.others if (reason := reason_to_skip(other, tandem))]
            if reasons:
                skipped.append(f"{row.title}, {against.label}: {reasons[0]}")
            else:
                held.append(against)
        rows.append((row, held))
        for measure in [row.own, *(other for against in held for other in against.others)]:
            if measure not in measures:
                measures.append(measure)
    return rows, measures, skipped


def measure_all(context, measures):
    """A round's figures for each measure, round by round."""
    servers, rounds = {}, []
    try:
        for name in dict.fromkeys(measure.server for measure in measures):
            if name:
                print(f"starting {name}", file=sys.stderr)
                servers[name] = context.start(name)
                context.fill(name, servers[name])
        for load in dict.fromkeys(filter(None, (getattr(measure.load, "half_peak_of", None) for measure in measures))):
            peak = tandem_bench(*load)(servers["tandem"], context)
            context.half_peaks[load[:2]] = round(peak.rate / 2)
        for number in range(context.options.rounds):
            found = {}
            for measure in measures if number % 2 == 0 else reversed(measures):
                found[measure] = measure(servers, context)
            rounds.append(found)
            print(f"round {number + 1} of {context.options.rounds}", file=sys.stderr)
        for name, server in servers.items():
            if refused := server.refused():
                raise Failed(f"{name} refused requests, so the figures are not what they seem: {refused}")
    finally:
        for server in servers.values():
            server.stop()
    return rounds


def options():
    parser = argparse.ArgumentParser(prog="benches/compare")
    parser.add_argument("--rounds", type=int, default=5, help="at least 5 for figures to be shown to others")
    parser.add_argument("--seconds", type=int, default=5, help="of each load in each round")
    parser.add_argument("--only", default="", help="names of rows, with commas between")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--readme", action="store_true", help="put the table into the README")
    parser.add_argument("--large-keys", type=int, default=LARGE_KEYS, help="keys of the large store")
    parser.add_argument("--tandem", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    chosen = options()
    if chosen.list:
        print("\n".join(f"{row.name:18}{row.title}" for row in ROWS))
        return
    names = set(filter(None, chosen.only.split(",")))
    if unknown := names - {row.name for row in ROWS}:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; --list names them")
    # Whoever ends this ends what it has started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows, measures, skipped = plan(names, chosen.tandem)
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    base = Path(os.environ.get("TANDEM_BENCH_DIRECTORY", chosen.output))
    with tempfile.TemporaryDirectory(prefix="data.", dir=base) as work:
        rounds = measure_all(Context(chosen, Path(work).resolve()), measures)
    report.write(chosen, rows, rounds, skipped, report.machine(base), versions(chosen.tandem))


if __name__ == "__main__":
    main()
