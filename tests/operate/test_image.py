"""The image, built by Debian's Docker engine and run as an operator would: read-only, without root, with put, restart, get.

The registries of images are not asked: the images that the Dockerfile starts from are made of Debian's packages and this
machine's Rust, under the names that the Dockerfile uses.

The program in it is TANDEM_BINARY, which stands in for the Dockerfile's build stage, so that nothing is compiled twice; .ci/run
builds that program from exactly the files that the stage copies. `TANDEM_IMAGE_COMPILE=1` has the stage itself build it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from chart import of_kind, rendered
from conftest import ROOT, binary, run, tool

BUILDER, BASE = re.findall(r"^FROM ([^$\s]+)", (ROOT / "Dockerfile").read_text(), re.M)
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


class Engine:
    """A Docker engine of this run's own."""

    def __init__(self, directory):
        self.directory = directory
        self.host = f"unix://{directory / 'socket'}"
        # Debian's client brings its builder with it; a newer one elsewhere on the PATH may not.
        self.program = "/usr/bin/docker" if pathlib.Path("/usr/bin/docker").exists() else tool("docker")
        self.log = open(directory / "log", "wb")
        places = [f"--{name}={directory / place}" for name, place in (("data-root", "data"), ("exec-root", "run"), ("pidfile", "pid"))]
        self.process = subprocess.Popen([tool("dockerd"), *places, "--host", self.host], stdout=self.log, stderr=self.log)

    def is_up(self, patience_seconds=60):
        """Whether it came up."""
        end = time.monotonic() + patience_seconds
        while time.monotonic() < end and self.process.poll() is None:
            if run(self.program, "--host", self.host, "version").returncode == 0:
                return True
            time.sleep(0.3)
        return False

    def docker(self, *arguments, **more):
        """Runs docker, which must succeed."""
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        done = run(self.program, "--host", self.host, *arguments, env=environment, **more)
        assert done.returncode == 0, f"docker {arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def inspect(self, name):
        """What it knows of an image or a container."""
        return json.loads(self.docker("inspect", name))[0]

    def stop(self):
        """Its end, and that of everything it holds."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine, or a skip that says why there is none."""
    tool("dockerd"), tool("debootstrap")
    engine = Engine(tmp_path_factory.mktemp("engine"))
    try:
        if not engine.is_up():
            tail = (engine.directory / "log").read_text(errors="replace").splitlines()[-3:]
            pytest.skip("no Docker engine can be started on this machine: " + " | ".join(tail))
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):
    """The image, built as `docker build .` builds it."""
    directory = tmp_path_factory.mktemp("bases")
    suite = re.search(r"bookworm|trixie", BUILDER).group()
    made = run("debootstrap", "--variant=minbase", suite, directory / "debian")
    assert made.returncode == 0, made.stdout[-2000:]
    archive = subprocess.Popen(["tar", "-C", directory / "debian", "-c", "."], stdout=subprocess.PIPE)
    engine.docker("import", "-", BASE, stdin=archive.stdout)
    assert archive.wait() == 0
    started = time.monotonic()
    if os.environ.get("TANDEM_IMAGE_COMPILE"):
        make_builder(engine, directory / "builder")
        seed(engine)
        program = []
    else:
        program = [f"--build-arg=PROGRAM={program_image(engine, directory / 'program')}"]
    engine.docker("build", "--network=host", "--tag=tandem", *program, ROOT)
    print(f"\nbuilt in {time.monotonic() - started:.0f} s")
    shutil.rmtree(directory)
    return engine.inspect("tandem")


def program_image(engine, context):
    """An image that holds the program under test and nothing else, as the build stage leaves it: without debug sections."""
    context.mkdir()
    stripped = run("strip", "--strip-debug", "-o", context / "tandem", binary())
    assert stripped.returncode == 0, stripped.stderr
    (context / "Dockerfile").write_text("FROM scratch\nCOPY tandem /tandem\n")
    engine.docker("build", "--tag=program", context)
    return "program"


def make_builder(engine, context):
    """Debian with a C linker and this machine's Rust: what the official image is."""
    context.mkdir()
    sysroot = pathlib.Path(run("rustc", "--print", "sysroot").stdout.strip())
    for part in ("bin", "lib", "libexec"):
        shutil.copytree(sysroot / part, context / "rust" / part, symlinks=True)
    # Packages may come through a registry with a certificate of this machine's own.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null\n"
        "COPY rust /usr/local\n"
        "COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\n"
        f"ENV CARGO_HOME={os.environ.get('CARGO_HOME', pathlib.Path.home() / '.cargo')}\n"
    )
    engine.docker("build", "--network=host", f"--tag={BUILDER}", context)


def seed(engine):
    """What a release build here has compiled begins the build's cache, for the same compiler, flags and paths of crates
    give the same results; cargo judges that, and compiles the rest. Without it the build takes its minutes."""
    release = ROOT / "target/release"
    if (release / ".fingerprint").exists():
        parts = "".join(f"COPY {part} /seed/{part}\n" for part in (".fingerprint", "build", "deps"))
        cache = "--mount=type=cache,target=/source/target"
        copy = f"RUN {cache} mkdir -p /source/target/release && cp -a /seed/. /source/target/release/\n"
        engine.docker("build", "--file=-", release, input=f"FROM {BUILDER}\n{parts}{copy}")


@pytest.fixture
def container(engine, image):
    """A running container, hardened, on a volume of its own."""
    more = ["--publish=127.0.0.1::16700", "--volume=data:/var/lib/tandem", "--memory=512m"]
    started = time.monotonic()
    name = engine.docker("run", "--detach", *HARDENED, *more, "tandem")
    wait_until_ready(engine, name)
    print(f"\nready {time.monotonic() - started:.2f} s after docker run")
    yield name
    engine.docker("rm", "--force", "--volumes", name)
    engine.docker("volume", "rm", "data")


def wait_until_ready(engine, name, patience_seconds=60):
    """By the command that the image's health check runs."""
    end = time.monotonic() + patience_seconds
    while time.monotonic() < end:
        if run(engine.program, "--host", engine.host, "exec", name, "tandem", "healthcheck").returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(engine.docker("logs", name))


def rest(engine, name, method, path, body=None):
    """One request to a container, and its status and body."""
    address = engine.docker("port", name, "16700/tcp")
    request = urllib.request.Request(f"http://{address}{path}", data=body, method=method)
    with contextlib.closing(urllib.request.urlopen(request, timeout=10)) as answer:
        return answer.status, answer.read()


def test_it_is_small(engine, image):
    beyond = image["Size"] - engine.inspect(BASE)["Size"]
    print(f"\n{beyond / 1e6:.1f} MB beyond its base")
    assert beyond <= 40_000_000


def test_it_is_ready_soon_after_docker_run(engine, image):
    """A figure, not a promise: machines differ."""
    seconds = []
    for _ in range(5):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = time.monotonic()
        name = engine.docker("run", "--detach", *HARDENED, f"--publish=127.0.0.1:{port}:16702", "tandem")
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert time.monotonic() - started < 60, engine.docker("logs", name)
            time.sleep(0.002)
        seconds.append(time.monotonic() - started)
        engine.docker("rm", "--force", "--volumes", name)
    print(f"\nready after docker run: median {statistics.median(seconds):.2f} s of {[round(each, 2) for each in seconds]}")


def answers(url):
    """Whether it answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_it_says_what_it_is_and_how_it_wants_to_be_run(image):
    configuration = image["Config"]
    assert configuration["User"] == "10001:10001"
    assert configuration["StopSignal"] == "SIGTERM"
    assert configuration["Healthcheck"]["Test"] == ["CMD", "tandem", "healthcheck"]
    assert set(configuration["ExposedPorts"]) == {"16700/tcp", "16701/tcp", "16702/tcp"}
    labels = {f"org.opencontainers.image.{name}" for name in ("title", "description", "version", "licenses")}
    assert labels <= set(configuration["Labels"])


def test_it_starts_nothing_as_root_and_holds_no_tools_of_the_build(engine, container):
    assert engine.docker("exec", container, "id", "-u") == "10001"
    assert run(engine.program, "--host", engine.host, "exec", container, "cargo").returncode != 0
    processes = engine.docker("top", container, "-o", "pid,uid").splitlines()[1:]
    assert [line.split()[1] for line in processes] == ["10001"]


def test_what_was_put_is_there_after_a_restart_and_after_a_kill(engine, container):
    assert rest(engine, container, "PUT", "/v1/kv/a", b"kept")[0] == 201
    engine.docker("restart", container)
    wait_until_ready(engine, container)
    assert rest(engine, container, "GET", "/v1/kv/a") == (200, b"kept")
    assert rest(engine, container, "PUT", "/v1/kv/b", b"kept too")[0] == 201
    engine.docker("kill", container)
    engine.docker("start", container)
    wait_until_ready(engine, container)
    assert rest(engine, container, "GET", "/v1/kv/b") == (200, b"kept too")


def test_sigterm_drains_and_ends_it_cleanly(engine, container):
    engine.docker("stop", "--time=30", container)
    state = engine.inspect(container)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert "stopped cleanly" in run(engine.program, "--host", engine.host, "logs", container).stderr


def test_the_engine_finds_it_healthy(engine, container):
    end = time.monotonic() + 60
    while (health := engine.inspect(container)["State"]["Health"])["Status"] == "starting" and time.monotonic() < end:
        time.sleep(0.5)
    assert health["Status"] == "healthy", health


def test_the_charts_backup_and_restore_run_in_it(engine, image):
    """What the CronJob's pod and the init container run, in the image they run in, read-only and without root."""
    values = {"backup": {"enabled": True}}
    restore = {"enabled": True, "volume": {"persistentVolumeClaim": {"claimName": "any"}}}
    (job,) = of_kind(rendered(values), "CronJob")
    (backup,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

    def ran(container, *more):
        variables = [f"--env={each['name']}={each['value']}" for each in container.get("env", [])]
        program, *arguments = container["command"]
        command = [*HARDENED, *variables, *more, f"--entrypoint={program}", "tandem", *arguments]
        return engine.docker("run", "--rm", *command)

    def owned(volume):
        """What fsGroup does to a volume."""
        engine.docker("run", "--rm", "--user=0", f"--volume={volume}:/v", "--entrypoint=chown", "tandem", "10001:10001", "/v")

    owned("backups"), owned("fresh")
    more = ["--env=TANDEM__SERVER__ADMIN=on", "--publish=127.0.0.1::16700"]
    store = engine.docker("run", "--detach", *HARDENED, *more, "tandem")
    wait_until_ready(engine, store)
    assert rest(engine, store, "PUT", "/v1/kv/a", b"kept")[0] == 201
    said = ran(backup, f"--network=container:{store}", "--env=TANDEM_OPS_ENDPOINT=http://127.0.0.1:16702", "--volume=backups:/backups")
    file = re.search(r"backed up to /backups/(\S+)", said).group(1)
    engine.docker("rm", "--force", "--volumes", store)

    (stateful,) = of_kind(rendered({"restore": {**restore, "file": file}}), "StatefulSet")
    (init,) = stateful["spec"]["template"]["spec"]["initContainers"]
    mounts = ["--volume=backups:/restore:ro", "--volume=fresh:/var/lib/tandem"]
    ran(init, *mounts)
    assert "left as it is" in ran(init, *mounts)
    new = engine.docker("run", "--detach", *HARDENED, *more, "--volume=fresh:/var/lib/tandem", "tandem")
    wait_until_ready(engine, new)
    assert rest(engine, new, "GET", "/v1/kv/a") == (200, b"kept")
    engine.docker("rm", "--force", "--volumes", new)
    engine.docker("volume", "rm", "backups", "fresh")
