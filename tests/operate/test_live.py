"""A server under load, restarted once, scraped by a real Prometheus: nothing that is asked of it is asked in vain."""

import math
import re
import time
import urllib.request

import pytest

import load
from conftest import ROOT, Server
from expressions import all_expressions, metrics_named
from prometheus_server import Prometheus

# Alerts whose expression is empty for as long as all is well, comparison or not.
EMPTY_WHEN_WELL = {
    "alert TandemMissing": "absent() of something that is there",
    "alert TandemMetricOverflow": "no metric is folded",
    "overview, annotation Alarms": "no alarm is raised",
    "engine, annotation Alarms": "no alarm is raised",
}
# Metrics that no board and no rule shows, and why not.
NOT_SHOWN = {
    "tandem_snapshot_last_index": "a position in the log, for whoever compares it with files",
    "tandem_evacuation_step_duration_seconds": "a promise of pauselessness, there only after large deletes",
}
# Histograms' series appear with their first record: the run waits for these after the restart.
SHOWN_LATE = [
    "http_server_request_duration_seconds_count",
    'rpc_server_call_duration_seconds_count{rpc_response_status_code="OK"}',
    'rpc_server_call_duration_seconds_count{rpc_response_status_code!="OK"}',
    "tandem_wait_duration_seconds_count",
    "tandem_stream_duration_seconds_count",
    "tandem_read_lock_duration_seconds_count",
    "tandem_snapshot_duration_seconds_count",
    "tandem_core_lag_seconds_count",
]


class Run:
    """What is left of the run: the Prometheus that watched it, and the last scrape."""

    def __init__(self, prometheus, text):
        self.prometheus = prometheus
        self.families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        self.help = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
        self.names = {re.match(r"[^{ ]+", line).group() for line in text.splitlines() if line and line[0] != "#"}
        self.series_count = len([line for line in text.splitlines() if line and line[0] != "#"])


@pytest.fixture(scope="module")
def observed(directory):
    """The run: load, a restart under load, load."""
    data = directory / "data"
    data.mkdir()
    server = Server(data, directory / "server.log")
    prometheus = Prometheus(directory, server.ops)
    try:
        with load.running(server.http, server.grpc):
            prometheus.wait_for("up == 1")
            prometheus.started = time.time()
            prometheus.wait_for("rate(tandem_operations_total[5s]) > 0")
            server.stop()
            prometheus.wait_for("up == 0")
            server = Server(data, directory / "server.log", (server.http, server.grpc, server.ops))
            prometheus.wait_for("changes(process_start_time_seconds[1m]) > 0")
            for name in SHOWN_LATE:
                prometheus.wait_for(f"{name} and on () (up == 1)")
            started = time.monotonic()
            with urllib.request.urlopen(f"http://{server.ops}/metrics") as answer:
                text = answer.read().decode()
            run = Run(prometheus, text)
            milliseconds = (time.monotonic() - started) * 1000
            print(f"\n{run.series_count} series in {len(run.families)} metrics, scraped in {milliseconds:.1f} ms")
        server.stop()
        yield run
    finally:
        prometheus.stop()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def without_comparisons(expression):
    """An alert's expression asks whether things are too much; here it is asked how much there is of each."""
    sides = re.split(r"\b(?:and|unless) on \([^)]*\)", expression)
    return [re.sub(r"\s(>|<|==)\s.*", "", side, flags=re.S).strip() for side in sides]


@pytest.mark.parametrize("place,expression", [pytest.param(*both, id=both[0]) for both in all_expressions()])
def test_every_expression_has_an_answer(observed, place, expression):
    for name in metrics_named(expression):
        assert name in observed.names, f"{place} names {name}, which the server does not export"
    for asked in without_comparisons(expression) if place.startswith("alert") else [expression]:
        series = observed.prometheus.series(asked)
        values = [float(value) for one in series for _, value in one["values"]]
        if place in EMPTY_WHEN_WELL:
            assert not series, f"{place}: {EMPTY_WHEN_WELL[place]}, and yet {series}"
        else:
            assert any(math.isfinite(value) for value in values), f"{place} has no data: {asked}"


def test_prometheus_evaluates_every_rule_and_alert_without_complaint(observed):
    rules = [rule for group in observed.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


def test_no_alert_wakes_anyone_over_a_planned_restart(observed):
    firing = observed.prometheus.series('ALERTS{alertstate="firing"}')
    assert not firing, firing


def test_every_exported_metric_says_what_it_means(observed):
    for family in observed.families:
        assert len(observed.help.get(family, "").split()) >= 2, f"{family} has no help text"


def test_every_exported_metric_is_shown_on_a_board_or_in_a_rule(observed):
    named = set().union(*(metrics_named(expression) for _, expression in all_expressions()))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} | named
    assert set(observed.families) - shown <= set(NOT_SHOWN)


def test_every_exported_metric_is_listed_for_operators(observed):
    listed = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "config/prometheus/metrics.md").read_text(), re.M))
    assert set(observed.families) <= listed


def test_labels_stay_few_on_a_busy_server(observed):
    assert observed.series_count < 2000, "a scrape grows with what clients send"
