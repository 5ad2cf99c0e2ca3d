"""Prometheus' configuration, rules and alerts, judged by promtool; and the promises that promtool does not know."""

import yaml

from conftest import ROOT, run, tool
from expressions import alerts

FOLDER = ROOT / "config/prometheus"


def test_promtool_finds_configuration_rules_and_alerts_good():
    checked = run(tool("promtool"), "check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_unit_tests_of_rules_and_alerts_pass():
    tests = sorted(FOLDER.glob("*_test.yml"))
    assert [path.name for path in tests] == ["alerts_test.yml", "rules_test.yml"]
    tested = run(tool("promtool"), "test", "rules", *tests)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_made_to_fire_and_to_stay_silent():
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["promql_expr_test"]]
    for name in alerts():
        expected = [case["exp_samples"] for case in cases if name in case["expr"] or matches(case["expr"], name)]
        fires = [samples for samples in expected if any(f'alertname="{name}"' in sample["labels"] for sample in samples)]
        silent = [samples for samples in expected if not any(f'"{name}"' in sample["labels"] for sample in samples)]
        assert fires and silent, f"{name} is not shown to fire and to stay silent"


def matches(expression, name):
    """Whether a pattern such as alertname=~"TandemSync.*" covers the name."""
    _, found, rest = expression.partition('alertname=~"')
    return bool(found) and name.startswith(rest.partition(".*")[0])


def test_every_alert_says_what_is_wrong_what_it_means_and_what_to_do():
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        annotations = alert["annotations"]
        assert set(annotations) == {"summary", "description", "runbook"}, name
        assert len(annotations["runbook"].splitlines()) >= 2, f"{name}: a runbook has steps"


def test_the_readme_of_the_chart_explains_every_alert():
    text = (ROOT / "helm/tandem/README.md").read_text()
    for name in alerts():
        assert f"`{name}`" in text, name
