"""The parts of the pages that are made from the figures, between marks, and the files that are checked in with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.processes import ROOT
from benchmarks.results import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
CHART = ROOT / "docs" / "performance.png"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")

_PART = re.compile(r"(<!-- bench: ([\w-]+) -->\n).*?(<!-- /bench -->\n)", re.DOTALL)


def _conditions(report: Report) -> str:
    names = {"python": "Python", "machine": "", "nginx": "nginx", "litellm": "LiteLLM", "portkey": "Portkey's gateway"}
    used = [f"{names.get(name, name)} {value}".strip() for name, value in report.machine.items()]
    return f"Measured with {', '.join(used)}.\n" + "".join(f"Left out: {why}.\n" for why in report.left_out)


PARTS: Mapping[str, Callable[[Report], str]] = {
    "summary": tables.summary,
    "conditions": _conditions,
    "call": lambda report: tables.of_groups(report, "call", "limits", "once"),
    "served": lambda report: tables.of_groups(report, "hosted", "proxied", "streamed"),
    "peers": lambda report: tables.of_groups(report, "peers"),
    "cpu": lambda report: tables.of_groups(report, "cpu"),
    "profiles": lambda report: "\n".join(map(tables.of_profile, report.profiles)),
    "curves": lambda report: "\n".join(map(tables.of_curve, report.curves)),
}


def filled(page: str, report: Report) -> str:
    """Return a page's text with its marked parts made anew.

    Raises:
        KeyError: A mark names no part.
    """
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]](report)}\n{part[3]}", page)


def stored() -> Report:
    """Read the figures that are checked in."""
    return Report.decode(RESULTS.read_bytes())


def write(report: Report) -> None:
    """Check a report in: its figures, the chart, and the parts of the pages."""
    from benchmarks.chart import draw

    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(report.encode())
    # From what the file says, so that pages made from it later are the same.
    report = stored()
    draw(report, CHART)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), report), encoding="utf-8")
