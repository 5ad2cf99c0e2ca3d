"""The Helm chart, rendered: strict, complete, explained, and without a value that does nothing."""

import json
import re
import tarfile

import pytest
import yaml

from chart import CHART, DEFAULTS, EVERYTHING, documented, helm, leaves, of_kind, rendered, try_rendered, with_value
from conftest import ROOT, Server, binary, run, tool

# Values as an operator would set them; each is linted, rendered, and its configuration checked by the store itself.
COMBINATIONS = {
    "defaults": {},
    "everything": EVERYTHING,
    "no volume": {"persistence": {"enabled": False}},
    "taken down": {"replicas": 0, "persistence": {"whenScaled": "Delete"}},
    "a big store": {
        "resources": {"requests": {"cpu": 4, "memory": "64Gi"}, "limits": {"memory": "64Gi"}},
        "persistence": {"size": "400Gi", "storageClassName": "fast", "accessModes": ["ReadWriteOncePod"]},
        "probes": {"startup": {"failureThreshold": 1800}},
    },
    "weaker sync": {"config": {"wal": {"sync": "interval", "sync_interval": "100ms"}, "telemetry": {"log_level": "warn"}}},
    "settings from the environment": {"extraEnv": [{"name": "TANDEM__LIMITS__KEY_BYTES", "value": "2KiB"}]},
    "a private registry": {
        "image": {"repository": "registry.example/tandem", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Tandem"}},
    },
    "an ingress": {
        "ingress": {"enabled": True, "hosts": ["kv.example"], "tls": [{"secretName": "kv", "hosts": ["kv.example"]}]}
    },
    "gateway routes": {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["kv.example"]},
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
    },
    "backups": {"backup": {"enabled": True, "keep": 30, "schedule": "@hourly", "size": "100Gi", "storageClassName": "cheap"}},
    "backups to a volume that is there": {
        "backup": {"enabled": True, "existingClaim": "shared", "alerts": {"enabled": True}},
        "networkPolicy": {"enabled": True},
        "config": {"server": {"admin": True}},
    },
    "restored from a backup": {
        "backup": {"enabled": True},
        "restore": {
            "enabled": True,
            "volume": {"persistentVolumeClaim": {"claimName": "kv-tandem-backup", "readOnly": True}},
            "file": "kv-tandem/20261125T031700Z.snap",
        },
    },
    "restored to a revision of an old volume": {
        "restore": {
            "enabled": True,
            "volume": {"persistentVolumeClaim": {"claimName": "data-kv-tandem-0"}},
            "file": "snapshots/00000000000000120000.snap",
            "wal": "wal",
            "toRevision": "1099511628776",
        },
    },
    "closed network": {"networkPolicy": {"enabled": True, "clients": [], "metrics": []}},
    "a load balancer": {"service": {"type": "LoadBalancer", "annotations": {"internal": "true"}, "grpcAppProtocol": "grpc"}},
    "a release of another name": {"fullnameOverride": "cache", "nameOverride": "kv", "podDisruptionBudget": {"enabled": False}},
    "an object and a sidecar": {
        "sidecars": [{"name": "tail", "image": "busybox:1.37.0", "args": ["sleep", "infinity"]}],
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}],
    },
}
RESTORE = {"enabled": True, "volume": {"emptyDir": {}}, "file": "a.snap"}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_it_lints_strictly_and_renders_what_the_store_accepts(name, tmp_path):
    values = tmp_path / "values.yml"
    values.write_text(yaml.safe_dump(COMBINATIONS[name]))
    linted = helm("lint", "--strict", "--values", values, CHART)
    assert linted.returncode == 0 and "1 chart(s) linted, 0 chart(s) failed" in linted.stdout, linted.stdout
    objects = rendered(COMBINATIONS[name])
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names)), names
    configuration = tmp_path / "tandem.yml"
    configuration.write_text(of_kind(objects, "ConfigMap")[0]["data"]["tandem.yml"])
    container = of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]
    environment = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    checked = run(binary(), "config", "check", "--config", configuration, env=environment)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "values,complaint",
    [
        ({"replicas": 3}, "replicas"),
        ({"persistance": {"enabled": False}}, "persistance"),
        ({"persistence": {"sise": "5Gi"}}, "sise"),
        ({"persistence": {"size": "five"}}, "size"),
        ({"persistence": {"whenDeleted": "delete"}}, "whenDeleted"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"image": {"digest": "sha256:12"}}, "digest"),
        ({"service": {"type": "ExternalName"}}, "type"),
        ({"service": {"httpPort": 70000}}, "httpPort"),
        ({"podDisruptionBudget": {"maxUnavailable": "50%"}}, "maxUnavailable"),
        ({"probes": {"startup": {"path": "/"}}}, "path"),
        ({"httpRoute": {"enabled": True}}, "parentRefs"),
        ({"grpcRoute": {"enabled": True, "parentRefs": []}}, "parentRefs"),
        ({"config": {"wal": "always"}}, "wal"),
        ({"config": {"server": {"http_address": "0.0.0.0:80"}}}, "config.server.http_address: the image sets it"),
        ({"config": {"server": {"data_dir": "/data"}}}, "config.server.data_dir: the image sets it"),
        ({"serviceMonitor": {"interval": "often"}}, "interval"),
        ({"podLabels": {"tier": 1}}, "podLabels"),
        ({"backup": {"schedule": "at night"}}, "schedule"),
        ({"backup": {"keep": 0}}, "keep"),
        ({"backup": {"enabled": True}, "config": {"server": {"admin": "off"}}}, "config.server.admin: backup.enabled needs it"),
        ({"backup": {"enabled": True}, "config": {"server": {"admin": False}}}, "config.server.admin: backup.enabled needs it"),
        ({"backup": {"enabled": True}, "extraEnv": [{"name": "TANDEM__SERVER__ADMIN", "value": "off"}]}, "TANDEM__SERVER__ADMIN"),
        ({"restore": {"enabled": True, "file": "a.snap"}}, "volume"),
        ({"restore": {"enabled": True, "volume": {"emptyDir": {}}}}, "file"),
        ({"restore": {"file": "/a.snap"}}, "file"),
        ({"restore": {**RESTORE, "toTime": "2026-11-25T08:59:59Z"}}, "restore.wal: a backup has one state only"),
        ({"restore": {**RESTORE, "wal": "wal", "toRevision": "7", "toTime": "2026-11-25T08:59:59Z"}}, "keep one of them"),
        ({"restore": {"toTime": "yesterday"}}, "toTime"),
        ({"restore": {"toRevision": 7}}, "toRevision"),
        ({"serviceMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}}, "networkPolicy.metrics: "),
    ],
    ids=str,
)
def test_it_refuses_what_it_would_ignore_or_break_on(values, complaint):
    refused = helm("template", "kv", CHART, "--values", "-", input=yaml.safe_dump(values))
    assert refused.returncode != 0 and complaint in refused.stderr, refused.stderr


def test_every_value_does_something():
    # A restore stops at a time or at a revision: everything but one of them.
    bases = {"restore.toRevision": with_value(EVERYTHING, ("restore", "toTime"), "")}
    everything_rendered = try_rendered(EVERYTHING)
    assert everything_rendered
    for path, value in leaves(DEFAULTS):
        base = bases.get(".".join(path), EVERYTHING)
        before = everything_rendered if base is EVERYTHING else try_rendered(base)
        for change in different(path, value):
            after = try_rendered(with_value(base, path, change))
            if after not in (None, before):
                break
        else:
            pytest.fail(f"{'.'.join(path)} changes nothing")


def different(path, value):
    """Other values than the one that EVERYTHING has, of which the schema takes at least one."""
    chosen = {
        "image.pullPolicy": ["Never"],
        "image.digest": ["", "sha256:" + "1" * 64],
        "persistence.size": ["11Gi"],
        "persistence.accessModes": [["ReadWriteMany"]],
        "persistence.whenDeleted": ["Delete", "Retain"],
        "persistence.whenScaled": ["Delete", "Retain"],
        "service.type": ["NodePort"],
        "podDisruptionBudget.maxUnavailable": [0],
        "serviceMonitor.interval": ["7s"],
        "serviceMonitor.scrapeTimeout": ["7s"],
        "replicas": [0],
        "resources": [{"limits": {"memory": "2Gi"}}],
        "config": [{"wal": {"sync": "never"}}],
        "backup.schedule": ["@daily"],
        "backup.size": ["11Gi"],
        "backup.accessModes": [["ReadWriteMany"]],
        "backup.whenDeleted": ["Delete"],
        "backup.resources": [{"limits": {"memory": "2Gi"}}],
        "backup.activeDeadlineSeconds": [7200],
        "restore.toRevision": ["7"],
        "restore.toTime": ["2026-11-26T08:59:59Z"],
    }
    if ".".join(path) in chosen:
        return chosen[".".join(path)]
    if isinstance(value, bool):
        return [not value, value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, str):
        return ["other"]
    if isinstance(value, list):
        return [["other.example"], [{"name": "other"}], [{"kind": "Other", "metadata": {"name": "other"}}]]
    return [{"other": "yes"}, {"other": 1}]


def test_the_readme_documents_every_value_with_its_default():
    rows = [f"| `{path}` | `{json.dumps(default)}` | {text} |" for path, default, text in documented()]
    assert {path for path, _, _ in documented()} == {".".join(path) for path, _ in leaves(DEFAULTS)}
    there = re.findall(r"^\| `[\w.]+` \| `.*` \| .* \|$", (CHART / "README.md").read_text(), re.M)
    assert there == rows, "the table of values should read:\n" + "\n".join(rows)


def test_the_chart_carries_the_very_files_that_compose_uses(tmp_path):
    packed = helm("package", CHART, "--destination", tmp_path)
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive if "/files/" in member.name}
    originals = [*(ROOT / "config/prometheus").glob("rules.yml"), *(ROOT / "config/prometheus").glob("alerts.yml")]
    originals += (ROOT / "grafana/dashboards").glob("*.json")
    assert files == {f"tandem/files/{path.name}": path.read_bytes() for path in originals}


def test_monitoring_is_the_same_as_in_compose():
    objects = rendered(COMBINATIONS["monitoring"])
    (rule,) = of_kind(objects, "PrometheusRule")
    groups = [yaml.safe_load((ROOT / f"config/prometheus/{name}.yml").read_text())["groups"] for name in ("rules", "alerts")]
    assert rule["spec"]["groups"] == groups[0] + groups[1]
    boards = of_kind(objects, "ConfigMap")[1]
    assert boards["metadata"]["labels"]["grafana_dashboard"] == "1"
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        assert json.loads(boards["data"][f"tandem-{path.name}"]) == json.loads(path.read_text())
    (monitor,) = of_kind(objects, "ServiceMonitor")
    (headless,) = [each for each in of_kind(objects, "Service") if each["spec"].get("clusterIP") == "None"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in headless["spec"]["ports"]}
    assert {"targetLabel": "job", "replacement": "tandem"} in endpoint["relabelings"]


def test_the_pod_has_no_more_rights_than_it_needs():
    (stateful,) = of_kind(rendered({}), "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    owner = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.M).groups()
    assert owner == (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["fsGroup"]))


def test_it_keeps_its_data_and_looks_where_the_image_writes():
    (stateful,) = of_kind(rendered({}), "StatefulSet")
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    mounts = {mount["name"]: mount["mountPath"] for mount in stateful["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert f"VOLUME {mounts[claim['metadata']['name']]}\n" in (ROOT / "Dockerfile").read_text()


def test_probes_ask_the_ops_port_and_give_a_start_half_an_hour():
    (stateful,) = of_kind(rendered({}), "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert asked["startup"] == asked["readiness"] == {"path": "/readyz", "port": "ops"}
    assert asked["liveness"] == {"path": "/livez", "port": "ops"}
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 30 * 60
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 16700, "grpc": 16701, "ops": 16702}


def test_a_stop_has_time_to_leave_the_endpoints_and_to_drain():
    (stateful,) = of_kind(rendered({}), "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    sleep_seconds = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = re.search(r"drain_timeout: (\d+)s", (ROOT / "config/tandem.example.yml").read_text()).group(1)
    assert pod["terminationGracePeriodSeconds"] > sleep_seconds + int(drain)


def test_a_changed_configuration_restarts_the_pod_and_nothing_else_does():
    def template(values):
        return of_kind(rendered(values), "StatefulSet")[0]["spec"]["template"]

    assert template({}) != template({"config": {"wal": {"sync": "never"}}})
    assert template({}) == template({"service": {"httpPort": 80}, "dashboards": {"enabled": True}})


def test_services_name_their_ports_and_protocols():
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(rendered({}), "Service")}
    assert services["kv-tandem-headless"]["publishNotReadyAddresses"] is True
    clients = {port["name"]: (port["port"], port["appProtocol"]) for port in services["kv-tandem"]["ports"]}
    assert clients == {"http": (16700, "http"), "grpc": (16701, "kubernetes.io/h2c")}


def test_the_commands_of_helm_test_put_and_get_over_both_doors(directory):
    """What the pod would run, in its order, against a server here."""
    (pod,) = of_kind(rendered({}), "Pod")
    data = directory / "helm-test"
    data.mkdir()
    server = Server(data, directory / "helm-test.log")
    try:
        steps = pod["spec"]["initContainers"] + pod["spec"]["containers"]
        outputs = {step["name"]: spoken_here(step["command"], server) for step in steps}
    finally:
        server.stop()
    assert (outputs["grpc-get"], outputs["rest-get"]) == ("by-rest", "by-grpc")


def spoken_here(command, server):
    """Runs a step with the Service's addresses replaced by the server's; it must succeed."""
    program = binary() if command[0] == "tandem" else tool(command[0])
    arguments = command[1:]
    places = {"http://kv-tandem:16700": f"http://{server.http}", "kv-tandem:16701": server.grpc}
    for there, here in places.items():
        arguments = [argument.replace(there, here) for argument in arguments]
    done = run(program, *arguments)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
