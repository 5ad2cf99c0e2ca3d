"""Draws every panel of the boards over a run with load, faults and restarts, for a person to look at.

Not a test and not part of .ci/run: `TANDEM_BINARY=target/release/tandem python tests/operate/plots.py DIRECTORY` runs about four
minutes and leaves `overview.png` and `engine.png` there. It needs what tests/operate needs, and matplotlib.
A picture shows what a number does not: a line that is flat, or missing, or in a unit that nobody can read."""

import contextlib
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import matplotlib
import matplotlib.pyplot as plot

import load
from collector import collector
from conftest import Server
from expressions import BOARDS, board, filled, panels
from prometheus_server import Prometheus

matplotlib.use("agg")
SUFFIXES = {"s": "s", "bytes": "B", "Bps": "B/s", "ops": "/s", "reqps": "/s"}


@contextlib.contextmanager
def small_disk(directory):
    """A file system of 1 GiB to be filled up; where none can be mounted the folder itself, and that is said."""
    image, mounted = directory / "image", directory / "disk"
    mounted.mkdir()
    try:
        subprocess.run(["truncate", "--size=1G", image], check=True)
        subprocess.run(["mkfs.ext4", "-Fq", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no file system of its own ({error}): the disk does not get full in this run")
        yield mounted, False
        return
    try:
        yield mounted, True
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=False)


def busy_disk(directory, seconds):
    """Others write to the same disk, and sync."""
    ending = threading.Event()

    def writes(number):
        with open(directory / f"other-{number}", "wb") as file:
            while not ending.is_set():
                file.seek(0)
                file.write(os.urandom(4 << 20))
                file.flush()
                os.fsync(file.fileno())

    threads = [threading.Thread(target=writes, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    ending.set()
    for thread in threads:
        thread.join()
    for number in range(4):
        (directory / f"other-{number}").unlink()


def full_disk(directory, seconds):
    """Somebody fills the disk, and removes it again."""
    with contextlib.suppress(OSError), open(directory / "ballast", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    time.sleep(seconds)
    (directory / "ballast").unlink()


def short_memory(server, seconds):
    """Large values up to the limit, refused from there on, then deleted."""
    ending = time.monotonic() + seconds
    big, number = os.urandom(256 << 10), 0
    while time.monotonic() < ending:
        load.ask(server.http, "PUT", f"/v1/kv/large/{number % 400}", big)
        number += 1
        time.sleep(0.02)
    load.ask(server.http, "DELETE", "/v1/kv?prefix=large/")


def observe(directory):
    """The run, and the Prometheus that watched it."""
    settings = {"TANDEM__STORE__MEMORY_LIMIT": "48MiB", "TANDEM__WAL__DISK_RESERVE": "48MiB", "TANDEM__TELEMETRY__TRACE_SAMPLE_RATIO": "0.1"}
    settings |= {"TANDEM__WAL__SEGMENT_BYTES": "16MiB", "TANDEM__LIMITS__REQUEST_BYTES": "4MiB", "TANDEM__TELEMETRY__SLOW_REQUEST_THRESHOLD": "20ms", "TANDEM__SNAPSHOT__INTERVAL": "10s"}
    with small_disk(directory) as (disk, can_be_full), collector() as (endpoint, _):
        data = disk / "data"
        data.mkdir()
        os.environ.update(settings, TANDEM__TELEMETRY__OTLP_ENDPOINT=endpoint)
        server = Server(data, directory / "server.log")
        prometheus = Prometheus(directory, server.ops)
        marks = []

        def mark(text):
            print(f"{time.time() - prometheus.started:6.1f} s  {text}", flush=True)
            marks.append((time.time(), text))

        try:
            with load.running(server.http, server.grpc):
                prometheus.wait_for("up == 1")
                mark("load")
                time.sleep(40)
                mark("busy disk")
                busy_disk(disk, 20)
                if can_be_full:
                    mark("full disk")
                    full_disk(disk, 20)
                mark("load")
                time.sleep(20)
                mark("kill -9")
                server.process.kill()
                server.process.wait()
                time.sleep(5)
                server = Server(data, directory / "server.log", (server.http, server.grpc, server.ops))
                mark("started")
                time.sleep(30)
                mark("short memory")
                short_memory(server, 20)
                mark("load")
                time.sleep(20)
                mark("stalled")
                server.process.send_signal(19)
                time.sleep(3)
                server.process.send_signal(18)
                time.sleep(20)
                mark("SIGTERM")
                server.stop()
                server = Server(data, directory / "server.log", (server.http, server.grpc, server.ops))
                time.sleep(20)
            mark("no load")
            time.sleep(15)
            for path in BOARDS:
                draw(path, prometheus, marks, directory / f"{path.stem}.png")
            server.stop()
        finally:
            prometheus.stop()
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def draw(path, prometheus, marks, picture):
    """One board: its panels where they stand in Grafana's grid."""
    shown = panels(path)
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in shown)
    figure = plot.figure(figsize=(26, bottom * 0.42))
    for panel in shown:
        place = panel["gridPos"]
        box = [place["x"] / 24 + 0.018, 1 - (place["y"] + place["h"] - 0.9) / bottom, place["w"] / 24 - 0.026, (place["h"] - 2.1) / bottom]
        axes = figure.add_axes(box)
        draw_panel(axes, panel, prometheus)
        for moment, text in marks:
            axes.axvline(moment - prometheus.started, color="grey", linewidth=0.5, linestyle=":")
            if panel["type"] != "stat":
                axes.text(moment - prometheus.started, 1, text, fontsize=5, color="grey", transform=axes.get_xaxis_transform(), rotation=30)
    figure.savefig(picture, dpi=60)
    plot.close(figure)
    print(picture)


def draw_panel(axes, panel, prometheus):
    """One panel; one without data says so, and so does the terminal."""
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults.get("unit") or panel["options"].get("yAxis", {}).get("unit", "")
    axes.set_title(f"{panel['title']}  [{unit}]", fontsize=9, loc="left")
    series = [(target, one) for target in panel["targets"] for one in found(prometheus, panel, target)]
    if panel["type"] == "heatmap":
        return spread(axes, [one for _, one in series], prometheus.started)
    right = None
    for target, one in series:
        label = target["legendFormat"]
        for name, value in one["metric"].items():
            label = label.replace("{{" + name + "}}", value)
        onto, other_unit = axes, unit_at_right(panel, target, label)
        if other_unit is not None:
            if right is None:
                right = axes.twinx()
                right.yaxis.set_major_formatter(matplotlib.ticker.EngFormatter(unit=SUFFIXES.get(other_unit, "")))
                right.tick_params(labelsize=7)
            onto, label = right, f"{label} (right)"
        # A gap in the data is a gap in the line, as in Grafana.
        points = {float(at): float(value) for at, value in one["values"]}
        times = [min(points) + step for step in range(int(max(points) - min(points)) + 1)]
        style = "--" if onto is right else "-"
        onto.plot([at - prometheus.started for at in times], [points.get(at, math.nan) for at in times], style, label=label, linewidth=1)
    if defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.EngFormatter(unit=SUFFIXES.get(unit, "")))
    axes.tick_params(labelsize=7)
    if not series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
    elif panel["type"] == "stat":
        axes.text(0.5, 0.5, f"{float(series[0][1]['values'][-1][1]):.4g}", transform=axes.transAxes, ha="center", fontsize=22, alpha=0.5)
    else:
        axes.legend(fontsize=6, loc="upper left", ncols=2)
        if right is not None:
            right.legend(fontsize=6, loc="upper right")


def found(prometheus, panel, target):
    """The series of a target."""
    series = prometheus.series(filled(target["expr"]))
    if not series:
        print(f"    {panel['title']} {target['refId']}: no series")
    return series


def unit_at_right(panel, target, label):
    """The unit of a series that the panel puts on its right axis; nothing for the others."""
    for override in panel["fieldConfig"].get("overrides", []):
        matcher = override["matcher"]
        chosen = target["refId"] == matcher["options"] if matcher["id"] == "byFrameRefID" else re.match(matcher["options"], label)
        if chosen:
            return next(each["value"] for each in override["properties"] if each["id"] == "unit")
    return None


def spread(axes, series, started):
    """A heatmap of a histogram: cumulative counts by bucket, made into counts of each."""
    series.sort(key=lambda one: float(one["metric"]["le"]))
    times = sorted({float(at) for one in series for at, _ in one["values"]})
    below = {at: 0.0 for at in times}
    for row, one in enumerate(series):
        counts = {float(at): float(value) for at, value in one["values"]}
        dots = [(at - started, counts[at] - below[at]) for at in times if at in counts and counts[at] - below[at] > 0]
        axes.scatter([at for at, _ in dots], [row] * len(dots), c=[math.log1p(count) for _, count in dots], cmap="viridis", marker="s", s=6)
        below.update(counts)
    axes.set_yticks(range(len(series)), [one["metric"]["le"] for one in series], fontsize=5)


if __name__ == "__main__":
    chosen = pathlib.Path(sys.argv[1]).resolve()
    chosen.mkdir(parents=True)
    observe(chosen)
