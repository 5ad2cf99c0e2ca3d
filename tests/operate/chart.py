"""The chart as tests see it: rendered objects, its values and their comments."""

import copy
import re

import yaml

from conftest import ROOT, run, tool

CHART = ROOT / "helm/tandem"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
# Values under which every part of the chart is rendered, so that a change of any value must show.
EVERYTHING = {
    "config": {"wal": {"sync": "interval"}, "limits": {"value_bytes": "4MiB"}},
    "extraEnv": [{"name": "TANDEM__TELEMETRY__LOG_LEVEL", "value": "debug"}],
    "imagePullSecrets": [{"name": "registry"}],
    "networkPolicy": {
        "enabled": True,
        "metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 4317}]}],
    },
    "backup": {
        "enabled": True,
        "timeZone": "Europe/Berlin",
        "annotations": {"note": "kept"},
        "podLabels": {"tier": "jobs"},
        "podAnnotations": {"mesh": "out"},
        "alerts": {"enabled": True},
    },
    "restore": {
        "enabled": True,
        "volume": {"persistentVolumeClaim": {"claimName": "old"}},
        "file": "snapshots/00000000000000120000.snap",
        "wal": "wal",
        "toTime": "2026-11-25T08:59:59Z",
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Tandem"}},
    "ingress": {"enabled": True, "className": "nginx", "hosts": ["kv.example"], "annotations": {"body": "8m"}},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["kv.example"]},
    "grpcRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["grpc.example"]},
    "serviceAccountName": "kv",
    "podLabels": {"tier": "data"},
    "podAnnotations": {"note": "kept"},
    "priorityClassName": "important",
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "data", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"tier": "data"}},
        }
    ],
    "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    "sidecars": [{"name": "tail", "image": "busybox:1.37.0", "args": ["sleep", "infinity"]}],
    "extraObjects": [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-more"}}],
}


def helm(*arguments, **more):
    """Runs helm."""
    return run(tool("helm"), *arguments, **more)


def rendered(values):
    """The objects that the chart makes of the values, in a release `kv`."""
    done = template(values)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def try_rendered(values):
    """The same as text; nothing where the values are refused."""
    done = template(values)
    return done.stdout if done.returncode == 0 else None


def template(values):
    return helm("template", "kv", CHART, "--values", "-", input=yaml.safe_dump(values))


def of_kind(objects, kind):
    """Those of one kind."""
    return [each for each in objects if each["kind"] == kind]


def leaves(values, path=()):
    """(path, default) of each value; maps that are handed on whole are one."""
    for key, value in values.items():
        if isinstance(value, dict) and value and not described(path + (key,)):
            yield from leaves(value, path + (key,))
        else:
            yield path + (key,), value


def described(path):
    """Whether a comment explains this key as a whole."""
    return ".".join(path) in {name for name, _ in comments()}


def comments():
    """(dotted name, text) of each `# --` in values.yaml."""
    path, text = [], None
    for line in (CHART / "values.yaml").read_text().splitlines():
        comment = re.match(r"\s*# -- (.*)", line)
        key = re.match(r"( *)([\w-]+):", line)
        if comment:
            text = comment.group(1)
        elif key:
            path = [*path[: len(key.group(1)) // 2], key.group(2)]
            if text:
                yield ".".join(path), text
            text = None


def documented():
    """(dotted name, default, text) of each value, in order."""
    for name, text in comments():
        value = DEFAULTS
        for key in name.split("."):
            value = value[key]
        yield name, value, text


def with_value(values, path, value):
    """A copy with one value changed."""
    changed = copy.deepcopy(values)
    place = changed
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return changed
