"""What the suites of operating share: where things are, a running server, and tools that are there or said to be missing."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tool(name):
    """The path of a program. Where everything is required a missing one fails, elsewhere it skips by name."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("TANDEM_TOOLS", ""), os.environ["PATH"]]))
    if found is None:
        absent(f"{name} is not there (tests/operate/tools says where it comes from)")
    return found


def absent(reason):
    """Something that the test needs is not there."""
    if os.environ.get("TANDEM_REQUIRE_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command, **more):
    """Runs a command to its end; its output is text."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)


def binary():
    """The program under test."""
    path = pathlib.Path(os.environ.get("TANDEM_BINARY", ROOT / "target/debug/tandem")).resolve()
    if not path.exists():
        absent(f"{path} is not built")
    return path


class Server:
    """A server on free ports, or on those it had; the banner says which."""

    def __init__(self, data, log, ports=("127.0.0.1:0",) * 3):
        flags = zip(("--http-address", "--grpc-address", "--ops-address"), ports)
        command = [binary(), "--data-dir", data, *(part for flag in flags for part in flag)]
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=data.parent,
            # Snapshots are usually taken after 256 MiB of log: too long to wait for.
            env={"TANDEM__SNAPSHOT__INTERVAL": "1s", **os.environ},
        )
        found = None
        while not found:
            line = self.process.stdout.readline()
            assert line, f"it ended without a banner; see {log}"
            found = re.search(r"REST http://(\S+), gRPC (\S+), ops http://(\S+)", line)
        self.http, self.grpc, self.ops = found.groups()

    def stop(self):
        """SIGTERM, and its end."""
        self.process.terminate()
        assert self.process.wait(60) == 0
        self.log.close()


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """A place for this run."""
    return tmp_path_factory.mktemp("operate")
