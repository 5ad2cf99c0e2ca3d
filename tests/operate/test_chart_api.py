"""The chart against a real Kubernetes API: every combination is accepted, a release is installed, changed and rolled back.

There are no nodes and no controllers: objects are checked and stored, pods stay pending."""

import contextlib
import json
import os
import pathlib
import signal

import pytest
import yaml

from chart import CHART, EVERYTHING, helm
from conftest import ROOT, run
from test_chart import COMBINATIONS


class Cluster:
    """A Kubernetes API that is up."""

    def __init__(self, directory):
        self.environment = {**os.environ, "KUBECONFIG": str(directory / "kubeconfig")}
        self.program = directory / "bin/kubectl"

    def kubectl(self, *arguments, **more):
        """Runs kubectl, which must succeed."""
        done = run(self.program, *arguments, env=self.environment, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, kind):
        """Those of a kind in the default namespace."""
        return json.loads(self.kubectl("get", kind, "--output", "json"))["items"]

    def helm(self, *arguments, values=None):
        """Runs helm against it."""
        more = ["--values", "-"] if values is not None else []
        return helm(*arguments, *more, env=self.environment, input=yaml.safe_dump(values or {}))


@pytest.fixture(scope="module")
def cluster():
    """An API server and its store, started by the shared script and killed at the end."""
    up = pathlib.Path(os.environ.get("TANDEM_KUBE", ROOT.parent / "shared/kube")) / "up.sh"
    if not up.exists():
        # It belongs to the project's machines, not to a clone elsewhere.
        pytest.skip(f"{up} is not there: no Kubernetes API to try the chart on")
    directory = pathlib.Path(os.environ["TANDEM_TOOLS"]) / "kubernetes"
    # It is compiled where it was not before: six minutes on two cores.
    started = run("timeout", os.environ.get("TANDEM_KUBE_SECONDS", "900"), "bash", up, directory)
    try:
        if started.returncode:
            said = (started.stdout + started.stderr).strip().splitlines()[-3:] or ["it took too long"]
            pytest.skip("no Kubernetes API can be started on this machine: " + " | ".join(said))
        cluster = Cluster(directory)
        cluster.kubectl("apply", "--filename", ROOT / "tests/operate/custom_resources.yml")
        cluster.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
        yield cluster
    finally:
        # Asked politely, the API server waits for its drain.
        for pid in (directory / "pids").read_text().split() if (directory / "pids").exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_api_accepts_every_combination(cluster, name):
    rendered = helm("template", "kv", CHART, "--values", "-", input=yaml.safe_dump(COMBINATIONS[name]))
    assert rendered.returncode == 0, rendered.stderr
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename", "-", input=rendered.stdout)


def test_notes_give_the_first_curl_and_warn_of_what_loses_data(cluster):
    def notes(values):
        printed = cluster.helm("install", "kv", CHART, "--dry-run=server", values=values)
        assert printed.returncode == 0, printed.stderr
        return printed.stdout.split("NOTES:")[1]

    assert "curl -i -X PUT" in notes({}) and "WARNING" not in notes({})
    assert "persistence.enabled is false" in notes({"persistence": {"enabled": False}})
    assert "resources.limits.memory is not set" in notes({"resources": {"limits": None}})
    assert "replicas is 0" in notes({"replicas": 0})


def test_a_release_is_installed_upgraded_rolled_back_and_taken_down(cluster):
    def stateful():
        (only,) = cluster.objects("statefulsets")
        return only["spec"]

    def upgrade(values):
        return cluster.helm("upgrade", "kv", CHART, values={**EVERYTHING, **values})

    installed = cluster.helm("install", "kv", CHART, values=EVERYTHING)
    assert installed.returncode == 0, installed.stderr
    assert "The first curl" in installed.stdout
    (rule,) = [each for each in cluster.objects("prometheusrules") if each["metadata"]["name"] == "kv-tandem"]
    files = [yaml.safe_load((ROOT / f"config/prometheus/{name}.yml").read_text()) for name in ("rules", "alerts")]
    assert rule["spec"]["groups"] == files[0]["groups"] + files[1]["groups"]
    first = stateful()["template"]

    # The NOTES' command for a backup now. Nobody runs it here: there are no nodes.
    cluster.kubectl("create", "job", "--from=cronjob/kv-tandem-backup", "kv-tandem-backup-1")
    (job,) = cluster.objects("jobs")
    assert job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "kv-tandem-backup"

    changed = upgrade({"config": {"wal": {"sync": "always"}}})
    assert changed.returncode == 0, changed.stderr
    assert stateful()["template"] != first, "another configuration is another pod"

    grown = upgrade({"persistence": {"size": "20Gi"}})
    assert grown.returncode != 0 and "updates to statefulset spec" in grown.stderr, "README: Growing the volume"

    assert cluster.helm("rollback", "kv", "1").returncode == 0
    assert stateful()["template"] == first

    assert upgrade({"replicas": 0}).returncode == 0
    assert stateful()["replicas"] == 0

    gone = cluster.helm("uninstall", "kv")
    assert gone.returncode == 0, gone.stderr
    assert not cluster.objects("statefulsets") and not cluster.objects("prometheusrules") and not cluster.objects("cronjobs")
    assert [claim["metadata"]["name"] for claim in cluster.objects("persistentvolumeclaims")] == ["kv-tandem-backup"], "kept"
