"""The servers: each is started on free ports in a directory of its own, and ended by its process id."""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30
TICKS = os.sysconf("SC_CLK_TCK")
ANY_PORT = "127.0.0.1:0"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process that serves. Subclasses say how it starts and when it is ready."""

    name = ""

    def __init__(self, directory, command, environment=(), stdin=None):
        self.directory = directory
        directory.mkdir(parents=True)
        self.log = open(directory / "log", "wb")
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=stdin, stdout=subprocess.PIPE, stderr=self.log,
            env={**os.environ, **dict(environment)},
        )

    @property
    def cpu_seconds(self):
        """User and system time of all its threads."""
        # The name may hold anything; behind its closing bracket fields 14 and 15 are the 12th and 13th.
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def until(self, ready, pause=0.05):
        """Polls until it is ready; says what the server said if it is not in time."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = (self.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"{self.name} did not start: {said[-2000:]}")
            time.sleep(pause)

    def stop(self):
        if self.process.poll() is None:
            if self.process.stdin:
                self.process.stdin.close()
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def refused(self):
        """What it answered instead of what was asked for, as far as it tells: reasons, and how often."""
        return {}


class Tandem(Server):
    name = "Tandem"

    def __init__(self, directory, binary, environment=()):
        command = [binary, "--data-dir", directory / "data", "--log-level", "warn"]
        for door in ("http", "grpc", "ops"):
            command += [f"--{door}-address", ANY_PORT]
        super().__init__(directory, command, environment)
        # The first line of its banner comes when it serves; no line comes if it ended.
        banner = self.process.stdout.readline().decode()
        found = re.search(r"REST http://(\S+), gRPC (\S+), ops http://(\S+)", banner)
        self.until(lambda: found)
        self.http, self.grpc, self.ops = found.groups()

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.ops}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.ops}/readyz", timeout=10) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False

    def refused(self):
        counts = re.findall(r'^tandem_operations_total{operation="(\w+)",.*reason="(\w+)".*} (\d+)$', self.metrics(), re.M)
        refused = {f"{operation} {reason}": count for operation, reason, count in counts if reason != "OK" and int(count)}
        # A load that is over breaks its last messages off, those in many frames.
        refused.pop("batch_write MALFORMED", None)
        return refused


class Bare(Server):
    """The bare tonic and the bare axum server, in one process."""

    name = "bare"

    def __init__(self, directory, binary):
        super().__init__(directory, [binary, "serve"], stdin=subprocess.PIPE)
        found = re.search(r"REST http://(\S+), gRPC (\S+)", self.process.stdout.readline().decode())
        self.until(lambda: found)
        self.http, self.grpc = found.groups()


class Redis(Server):
    name = "Redis"

    def __init__(self, directory, fsync):
        self.port, self.fsync = free_port(), fsync
        super().__init__(directory, [
            "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", directory, "--daemonize", "no",
            "--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--logfile", directory / "redis.log",
        ])
        self.until(lambda: self.ask("PING") == "PONG")

    def ask(self, *words):
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()


class Etcd(Server):
    name = "etcd"

    def __init__(self, directory, binary):
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        super().__init__(directory, [
            binary, "--data-dir", directory / "data", "--log-level", "error", "--quota-backend-bytes", 8 << 30,
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ])
        self.grpc = client.removeprefix("http://")
        self.until(self.is_ready)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.grpc}/health", timeout=10) as answer:
                return b"true" in answer.read()
        except OSError:
            return False

    def refused(self):
        with urllib.request.urlopen(f"http://{self.grpc}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        counts = re.findall(r'^grpc_server_handled_total{grpc_code="(\w+)",.*service="etcdserverpb.KV".*} (\S+)$', text, re.M)
        # A load that is over leaves calls behind.
        return {code: count for code, count in counts if code not in ("OK", "Canceled") and float(count)}


def etcd_binary():
    return shutil.which(os.environ.get("ETCD", "etcd"))


def versions(tandem):
    """What was measured, by its own words."""
    commands = {
        "Tandem": [tandem, "--version"], "Redis": ["redis-server", "--version"], "etcd": [etcd_binary(), "--version"],
        "wrk": ["wrk", "-v"], "h2load": ["h2load", "--version"], "rustc": ["rustc", "--version"],
    }
    found = {}
    for name, command in commands.items():
        if command[0] and shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, timeout=30)
            number = re.search(r"\d+\.\d+\S*", said.stdout + said.stderr)
            found[name] = number.group() if number else "?"
    return found
