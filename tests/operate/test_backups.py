"""The chart's backups and restores: what their pods would run, run here against a server, and who may reach and who hears of them."""

import json
import os
import time

import pytest
import yaml

from chart import CHART, of_kind, rendered
from conftest import ROOT, Server, binary, run, tool

BACKUP = {"backup": {"enabled": True, "keep": 3, "alerts": {"enabled": True}}, "networkPolicy": {"enabled": True}}
RESTORE = {"enabled": True, "volume": {"persistentVolumeClaim": {"claimName": "kv-tandem-backup"}}, "file": "kv/a.snap"}


def backup_container(values=BACKUP):
    (job,) = of_kind(rendered(values), "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return container


def restore_container(more={}):
    (stateful,) = of_kind(rendered({"restore": {**RESTORE, **more}}), "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["initContainers"]
    return container


@pytest.fixture
def here(tmp_path):
    """Runs a container's command with its paths replaced by some of this machine's, and `tandem` on the PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "tandem").symlink_to(binary())

    def spoken(container, places, **environment):
        command = container["command"]
        for there, path in places.items():
            command = [part.replace(there, str(path)) for part in command]
        variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return run(*command, env={**os.environ, **variables, **environment, "PATH": path})

    return spoken


@pytest.fixture
def server(tmp_path):
    """A server with an entry `a`, and its data directory."""
    data = tmp_path / "data"
    data.mkdir()
    server = Server(data, tmp_path / "log")
    server.data = data
    put(server, "a", "kept")
    yield server
    if server.process.poll() is None:
        server.stop()


def put(server, key, value):
    """Puts it, and gives the answer."""
    done = run(binary(), "put", key, value, "--endpoint", server.grpc, "--output", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def value(server, key):
    """The value of an entry."""
    return run(binary(), "get", key, "--endpoint", server.grpc).stdout


def test_a_run_takes_a_whole_backup_and_keeps_as_many_as_it_should(here, server, tmp_path):
    folder = tmp_path / "backups/kv"
    folder.mkdir(parents=True)
    names = [f"2020010{day}T000000Z.snap" for day in range(1, 6)]
    for name in [*names, "before-the-migration.snap", "20200101T000000Z.snap.7.tmp", "20260101T000000Z.snap.7.tmp"]:
        (folder / name).touch()
    two_hours_ago = time.time() - 7200
    os.utime(folder / "20200101T000000Z.snap.7.tmp", (two_hours_ago, two_hours_ago))
    done = here(backup_container(), {}, FOLDER=str(folder), TANDEM_OPS_ENDPOINT=f"http://{server.ops}")
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in folder.iterdir())
    (new,) = set(left) - {*names, "before-the-migration.snap", "20260101T000000Z.snap.7.tmp"}
    assert left == sorted([new, *names[-2:], "before-the-migration.snap", "20260101T000000Z.snap.7.tmp"])
    assert f"backed up to {folder}/{new}" in done.stdout and f"removed {names[0]}" in done.stdout
    verified = run(binary(), "snapshot", "verify", folder / new)
    assert verified.returncode == 0, verified.stderr


def test_a_run_that_fails_removes_nothing_and_says_so_by_its_exit_code(here, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    names = [f"2020010{day}T000000Z.snap" for day in range(1, 6)]
    for name in names:
        (folder / name).touch()
    done = here(backup_container(), {}, FOLDER=str(folder), TANDEM_OPS_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode != 0 and "UNAVAILABLE" in done.stderr, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == names


def test_an_empty_directory_is_restored_into_and_a_store_is_left_alone(here, server, tmp_path):
    folder = tmp_path / "restore/kv"
    folder.mkdir(parents=True)
    taken = run(binary(), "backup", folder / "a.snap", "--endpoint", f"http://{server.ops}")
    assert taken.returncode == 0, taken.stderr
    put(server, "a", "later")
    server.stop()
    data = tmp_path / "new"
    (data / "lost+found").mkdir(parents=True)
    places = {"/restore/": f"{tmp_path}/restore/", "/var/lib/tandem": data}

    restored = here(restore_container(), places)
    assert restored.returncode == 0 and "restored 1 key" in restored.stderr, restored.stderr
    assert as_served(data, "a") == "kept"

    # As a restarted pod would.
    def files():
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in data.rglob("*")}

    before = files()
    again = here(restore_container(), places)
    assert again.returncode == 0 and "holds a store already: it is left as it is" in again.stdout, again.stdout + again.stderr
    assert files() == before


def test_a_restore_that_was_cut_short_is_begun_again(here, server, tmp_path):
    folder = tmp_path / "restore/kv"
    folder.mkdir(parents=True)
    run(binary(), "backup", folder / "a.snap", "--endpoint", f"http://{server.ops}")
    server.stop()
    data = tmp_path / "new"
    for name in ("wal", "snapshots"):
        (data / name).mkdir(parents=True)
    (data / "snapshots/00000000000000000001.snap").write_bytes(b"half of one")
    (data / "restoring").touch()
    restored = here(restore_container(), {"/restore/": f"{tmp_path}/restore/", "/var/lib/tandem": data})
    assert restored.returncode == 0 and "cut short: it is begun again" in restored.stdout, restored.stderr
    assert as_served(data, "a") == "kept"


def test_an_old_volume_is_restored_up_to_a_revision(here, server, tmp_path):
    assert run("curl", "-fsS", "-X", "POST", f"http://{server.ops}/v1/admin/snapshots").returncode == 0
    wanted = put(server, "a", "wanted")["revision"]
    put(server, "a", "a mistake")
    server.stop()
    oldest = min((server.data / "snapshots").glob("*.snap"), key=lambda path: path.name)
    data = tmp_path / "new"
    data.mkdir()
    more = {"file": f"snapshots/{oldest.name}", "wal": "wal", "toRevision": str(wanted)}
    restored = here(restore_container(more), {"/restore/": f"{server.data}/", "/var/lib/tandem": data})
    assert restored.returncode == 0, restored.stderr
    assert as_served(data, "a") == "wanted"


def as_served(data, key):
    """What a server on the directory says."""
    server = Server(data, data.parent / "log-of-restored")
    try:
        return value(server, key)
    finally:
        server.stop()


def test_runs_never_overlap_and_take_no_traffic_of_the_store():
    objects = rendered(BACKUP)
    (job,) = of_kind(objects, "CronJob")
    (stateful,) = of_kind(objects, "StatefulSet")
    assert job["spec"]["concurrencyPolicy"] == "Forbid" and job["spec"]["suspend"] is False
    labels = job["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
    selectors.append(stateful["spec"]["selector"]["matchLabels"])
    assert not any(selector.items() <= labels.items() for selector in selectors)
    assert of_kind(rendered({**BACKUP, "replicas": 0}), "CronJob")[0]["spec"]["suspend"] is True


def test_the_backups_pods_are_as_bare_of_rights_as_the_stores():
    objects = rendered(BACKUP)
    store = of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]
    pod = of_kind(objects, "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"] == store["securityContext"]
    assert pod["containers"][0]["securityContext"] == store["containers"][0]["securityContext"]


def test_the_administration_is_on_with_backups_only_and_the_network_admits_their_pods_only():
    objects = rendered(BACKUP)
    settings = yaml.safe_load(of_kind(objects, "ConfigMap")[0]["data"]["tandem.yml"])
    assert settings == {"server": {"admin": "on"}}
    (policy,) = of_kind(objects, "NetworkPolicy")
    to_ops = [rule["from"] for rule in policy["spec"]["ingress"] if {"port": "ops"} in rule["ports"]]
    labels = of_kind(objects, "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert to_ops == [[{"podSelector": {"matchLabels": labels}}]]

    without = rendered({"networkPolicy": {"enabled": True}})
    assert yaml.safe_load(of_kind(without, "ConfigMap")[0]["data"]["tandem.yml"]) == {}
    assert not [rule for rule in of_kind(without, "NetworkPolicy")[0]["spec"]["ingress"] if {"port": "ops"} in rule["ports"]]


def test_the_claim_outlives_the_release_unless_told_otherwise():
    def annotations(values):
        (claim,) = of_kind(rendered(values), "PersistentVolumeClaim")
        return claim["metadata"].get("annotations") or {}

    assert annotations(BACKUP) == {"helm.sh/resource-policy": "keep"}
    assert annotations({"backup": {"enabled": True, "whenDeleted": "Delete"}}) == {}
    there = rendered({"backup": {"enabled": True, "existingClaim": "shared"}})
    assert not of_kind(there, "PersistentVolumeClaim")
    pod = of_kind(there, "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "shared"


def test_alerts_tell_of_backups_that_fail_and_of_backups_that_do_not_come(tmp_path):
    (rule,) = of_kind(rendered(BACKUP), "PrometheusRule")
    (tmp_path / "backup_alerts.yml").write_text(yaml.safe_dump(rule["spec"]))
    (tmp_path / "test.yml").write_text((ROOT / "tests/operate/backup_alerts_test.yml").read_text())
    checked = run(tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "backup_alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = run(tool("promtool"), "test", "rules", tmp_path / "test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    readme = (CHART / "README.md").read_text()
    for alert in rule["spec"]["groups"][0]["rules"]:
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert len(alert["annotations"]["runbook"].splitlines()) >= 2 and f"`{alert['alert']}`" in readme
