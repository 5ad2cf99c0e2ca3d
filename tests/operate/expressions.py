"""Every PromQL expression of rules, alerts and dashboards, and the metrics that it names."""

import json
import re

import yaml

from conftest import ROOT

BOARDS = sorted((ROOT / "grafana/dashboards").glob("*.json"))
# What Grafana would put in for its variables.
VARIABLES = {"$job": "tandem", "$instance": ".+", "$__rate_interval": "20s", "$__range": "1m", "$__interval": "5s"}
# Names that are not the store's own.
FOREIGN = {"up", "ALERTS"}


def board(path):
    """A dashboard."""
    return json.loads(path.read_text())


def panels(path):
    """The panels of a dashboard that show something."""
    return [panel for panel in board(path)["panels"] if panel["type"] != "row"]


def rules():
    """Recording rules: name to expression."""
    return {rule["record"]: rule["expr"] for rule in rules_of("rules.yml")}


def alerts():
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules_of("alerts.yml")}


def rules_of(name):
    groups = yaml.safe_load((ROOT / "config/prometheus" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def filled(expression):
    """The expression with Grafana's variables filled in."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"an unknown variable in {expression}"
    return expression


def all_expressions():
    """(where it stands, expression) of everything."""
    for name, expression in rules().items():
        yield f"rule {name}", expression
    for name, alert in alerts().items():
        yield f"alert {name}", alert["expr"]
    for path in BOARDS:
        for annotation in board(path)["annotations"]["list"]:
            if "expr" in annotation:
                yield f"{path.stem}, annotation {annotation['name']}", filled(annotation["expr"])
        for panel in panels(path):
            for target in panel["targets"]:
                yield f"{path.stem}, panel {panel['title']} {target['refId']}", filled(target["expr"])


def metrics_named(expression):
    """Names of series that an expression asks for, without those that rules record."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    names = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w)(?!\s*\()", bare)
    words = {"by", "or", "and", "unless", "bool", "offset"}
    return {name for name in names if name not in words and ":" not in name} - FOREIGN
