"""The table, the figures behind it, and the plots."""

import datetime
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path


def machine(directory):
    """The machine in one line."""
    processors = Path("/proc/cpuinfo").read_text().split("model name")
    model = processors[1].split("\n")[0].strip("\t: ") if len(processors) > 1 else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = subprocess.run(["df", "--output=fstype", directory], capture_output=True, text=True)
    file_system = (found.stdout.split() or ["?"])[-1]
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {file_system}, Linux {platform.release()}"


def median(measured, of):
    figures = [figure for figure in map(of, measured) if figure is not None]
    return statistics.median(figures) if figures else None


def shown(rounds, measure, unit):
    """A measure's median, and the CPU time it cost its server."""
    measured = [found[measure] for found in rounds]
    if unit == "ms":
        figure = f"{median(measured, lambda one: one.p999_ms):.2f} ms"
    elif unit == "µs":
        figure = f"{median(measured, lambda one: one.mean_us):,.0f} µs"
    else:
        figure = f"{median(measured, lambda one: one.rate):,.0f}{unit}"
    return figure, median(measured, lambda one: one.cpu_us)


def lines(rows, rounds):
    """One line of the table for each row and what it is held against."""
    for row, held in rows:
        figure, cpu = shown(rounds, row.own, row.unit)
        for against in held:
            ratios = [against.of(found[row.own], [found[other] for other in against.others]) for found in rounds]
            others = [shown(rounds, other, row.unit) for other in against.others]
            yield {
                "name": row.name, "title": row.title, "against": against.label, "target": against.goal,
                "ratio": statistics.median(ratios), "ratios": ratios, "met": against.meets(statistics.median(ratios)),
                "own": figure, "own_cpu_us": cpu, "others": [other for other, _ in others],
                "others_cpu_us": [cost for _, cost in others],
            }


def microseconds(cost):
    return "—" if cost is None else f"{cost:.1f}"


def markdown(found, skipped, on, known, options, date):
    text = [
        f"{date}, {on}. Client and servers on the same cores, over loopback; keys of 32 bytes, values of 256. "
        f"Medians of {options.rounds} interleaved rounds of {options.seconds} s; a ratio is made in each round. "
        + ", ".join(f"{name} {number}" for name, number in known.items()) + ".",
        "",
        "| | Tandem | beside | | ratio (least to most) | target | met | CPU µs a request |",
        "|---|---|---|---|---|---|---|---|",
    ]
    last = None
    for line in found:
        title, own = ("", "") if line["name"] == last else (line["title"], line["own"])
        last = line["name"]
        spread = f"{min(line['ratios']):.2f} to {max(line['ratios']):.2f}"
        met = {None: "", True: "yes", False: "**no**"}[line["met"]]
        costs = " / ".join(map(microseconds, [line["own_cpu_us"], *line["others_cpu_us"]]))
        text.append(f"| {title} | {own} | {line['against']} | {' + '.join(line['others'])} | "
                    f"**{line['ratio']:.2f}** ({spread}) | {line['target']} | {met} | {costs} |")
    text += ["", *(f"Left out: {reason}." for reason in skipped)]
    return "\n".join(text).rstrip() + "\n"


def plot(found, output):
    """Ratios against their targets, and CPU time a request."""
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plots")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [f"{line['title']}\nbeside {line['against']}" for line in found]
    places = range(len(found), 0, -1)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 1.5 + 0.55 * len(found)), sharey=True, layout="constrained")
    colours = {None: "#8a8f98", True: "#2f7d4f", False: "#b3412e"}
    ratios = [line["ratio"] for line in found]
    spread = [[line["ratio"] - min(line["ratios"]) for line in found], [max(line["ratios"]) - line["ratio"] for line in found]]
    left.barh(places, ratios, xerr=spread, color=[colours[line["met"]] for line in found], height=0.6)
    for place, line in zip(places, found):
        left.text(line["ratio"], place + 0.02, f"  {line['ratio']:.2f}  (target {line['target']})", va="bottom", fontsize=8)
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlim(0, max(ratios) * 1.35)
    left.set_title("ratio: Tandem to what it stands beside (green: target met)")
    left.set_yticks(places, labels, fontsize=8)
    for shift, colour, name, costs in (
        (0.18, "#2f5d8a", "Tandem", [line["own_cpu_us"] for line in found]),
        (-0.18, "#c9b458", "beside", [(line["others_cpu_us"] or [None])[-1] for line in found]),
    ):
        right.barh([place + shift for place in places], [cost or 0 for cost in costs], height=0.34, color=colour, label=name)
    right.set_title("CPU µs of the server for a request")
    right.legend()
    for ending in ("svg", "png"):
        figure.savefig(output / f"ratios.{ending}", dpi=120)


def into_readme(table):
    """Puts the table where the README shows the last one."""
    readme = Path(__file__).parents[2] / "README.md"
    text = readme.read_text()
    before, rest = text.split("<!-- table: ", 1)
    marker, rest = rest.split("\n", 1)
    _, after = rest.split("<!-- end of the table -->", 1)
    readme.write_text(f"{before}<!-- table: {marker}\n{table}<!-- end of the table -->{after}")


def write(options, rows, rounds, skipped, on, known):
    """Writes table, figures and plots, and prints the table."""
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    found = list(lines(rows, rounds))
    table = markdown(found, skipped, on, known, options, date)
    (options.output / "table.md").write_text(table)
    results = {"date": date, "machine": on, "versions": known, "rounds": options.rounds, "seconds": options.seconds,
               "left_out": skipped, "lines": found}
    (options.output / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    plot(found, options.output)
    if options.readme:
        into_readme(table)
    print(table)
