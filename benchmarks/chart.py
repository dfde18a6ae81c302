"""The chart: what calls cost, what servers do, how costs grow."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.served import CHECKED, GATE, GATE_TEXT, GATED
from benchmarks.tables import number

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    figure = Figure(figsize=(14, 3.5 * rows), layout="constrained", dpi=80)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False)
    costs, calls, streams = panels[0]
    _costs(costs, report.results("call"))
    _rates(calls, "calls a second", [*report.results("hosted"), *report.results("proxied")])
    _rates(streams, "streams of 200 chunks a second", report.results("streamed"))
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
    names = [_wrapped(result.name) for result in reversed(results)]
    panel.set_yticks(range(len(results)), names, fontsize=8)
    panel.set_title("what the gate adds, times the codec (red: the most)", fontsize=10)


def _rates(panel: Axes, title: str, results: Sequence[Result]) -> None:
    results = sorted(results, key=lambda result: result.value)
    colors = [_OURS if result.name in (GATED, CHECKED, GATE, GATE_TEXT) else _OTHERS for result in results]
    bars = panel.barh([_wrapped(result.name) for result in results], [result.value for result in results], color=colors)
    panel.bar_label(bars, [number(result.value) for result in results], padding=3, fontsize=8)
    panel.set_xscale("log")
    panel.set_xlim(right=4 * max((result.value for result in results), default=1))
    panel.tick_params(axis="y", labelsize=8)
    panel.set_title(title, fontsize=10)


def _wrapped(name: str) -> str:
    return textwrap.fill(name, 30)


def _curve(panel: Axes, curve: Curve) -> None:
    amounts, costs = zip(*curve.points, strict=True)
    panel.plot(amounts, costs, color=_OURS, marker="o")
    panel.set_ylim(0, 1.15 * max(costs))
    panel.set_xlim(left=0)
    panel.set_xlabel(curve.along, fontsize=9)
    panel.set_ylabel(curve.unit, fontsize=9)
    panel.set_title(curve.name, fontsize=10)
