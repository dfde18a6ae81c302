"""The chart: what calls cost, what servers do, how costs grow."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.tables import number

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.results import Curve, Report, Result

_OURS = "#2a6f97"
_OTHERS = "#b8b8b8"
_BOUND = "#c1121f"

_COLUMNS = 3


def draw(report: Report, file: Path) -> None:
    """Write a PNG: a row of bars, and below it a row or two of curves where there are some."""
    rows = 1 + -(-len(report.curves) // _COLUMNS)
    figure = Figure(figsize=(15, 3.6 * rows), layout="constrained", dpi=80)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False)
    costs, calls, streams = panels[0]
    _costs(costs, report.results("call"))
    _rates(calls, "calls a second, one core", _rated(report, "hosted", "proxied", "peers", unit="requests/s"))
    _rates(streams, "streams of 200 chunks a second, one core", _rated(report, "streamed", "peers", unit="streams/s"))
    for panel, curve in zip_longest(panels[1:].flat, report.curves):
        if curve is None:
            panel.set_axis_off()
        else:
            _curve(panel, curve)
    figure.savefig(file, metadata={"Software": None})


def _costs(panel: Axes, results: tuple[Result, ...]) -> None:
    """Draw each cost beside its bound."""
    for place, result in enumerate(reversed(results)):
        ratio, bound = result.ratio or 0.0, result.bound or 0.0
        panel.barh(place, ratio, color=_OURS)
        panel.plot([bound, bound], [place - 0.4, place + 0.4], color=_BOUND)
    panel.set_yticks(range(len(results)), [result.name for result in reversed(results)], fontsize=8)
    panel.set_title("what the gate adds, in times of the codec (red: the bound)", fontsize=10)


def _rated(report: Report, *groups: str, unit: str) -> list[Result]:
    """Return the rates of a unit, one for each server."""
    results = [result for group in groups for result in report.results(group) if result.unit == unit]
    return list({result.name: result for result in results}.values())


def _rates(panel: Axes, title: str, results: list[Result]) -> None:
    results = sorted(results, key=lambda result: result.value)
    colors = [_OURS if "gate" in result.name.split("'s ")[0] else _OTHERS for result in results]
    bars = panel.barh([result.name for result in results], [result.value for result in results], color=colors)
    panel.bar_label(bars, [number(result.value) for result in results], padding=3, fontsize=8)
    panel.set_xscale("log")
    panel.margins(x=0.15)
    panel.tick_params(axis="y", labelsize=8)
    panel.set_title(title, fontsize=10)


def _curve(panel: Axes, curve: Curve) -> None:
    amounts, costs = zip(*curve.points, strict=True)
    panel.plot(amounts, costs, color=_OURS, marker="o")
    panel.set_ylim(bottom=0)
    panel.set_xlim(left=0)
    panel.set_xlabel(curve.along, fontsize=9)
    panel.set_ylabel(curve.unit, fontsize=9)
    panel.set_title(curve.name, fontsize=10)
