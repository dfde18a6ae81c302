"""Reports as text: for the terminal, and as Markdown for the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Curve, Group, Profile, Report, Result

_WIDTH = 62


def number(value: float) -> str:
    """Write a figure as it is read: few digits, and all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 0.1:
        return f"{value:.3g}" if value >= 1 else f"{value:.2f}"
    return f"{value:.1g}"


def bound(result: Result) -> str:
    """Write what is promised, and whether it is kept."""
    if result.bound is None:
        return ""
    unit = f" {result.unit}" if result.ratio is None else ""
    missed = ", missed" if result.verdict == "MISS" else ""
    return f"{'≥' if result.least else '≤'} {result.bound:g}{unit}{missed}"


def terminal(report: Report) -> str:
    """Return all figures with their verdicts."""
    return "\n".join(_terminal_group(group) for group in report.groups)


def _terminal_group(group: Group) -> str:
    lines = [f"{group.title:{_WIDTH}} {'':>20} {group.compared:>16}"]
    for result in group.results:
        ratio = "" if result.ratio is None else number(result.ratio)
        promised = bound(result).removesuffix(", missed")
        figure = f"{number(result.value)} {result.unit}"
        lines.append(f"  {result.name:{_WIDTH - 2}} {figure:>20} {ratio:>16}  {promised:10} {result.verdict}".rstrip())
    return "\n".join(lines) + "\n"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(result: Result, compared: str) -> list[str]:
    ratio = "" if result.ratio is None else f"{number(result.ratio)} {compared}"
    return [result.name, f"{number(result.value)} {result.unit}", ratio, bound(result)]


def summary(report: Report) -> str:
    """Return the table of all that is promised, turns of the loop aside."""
    groups = [group for group in report.groups if group.name != "turns"]
    rows = [_row(result, group.compared) for group in groups for result in group.results if result.bound is not None]
    return markdown(["what", "measured", "ratio", "promised"], rows)


def of_groups(report: Report, *names: str) -> str:
    """Return a table for each of some groups that was measured, headed by its title."""
    return "\n".join(_of_group(group) for group in report.groups if group.name in names)


def _of_group(group: Group) -> str:
    """Return a table without the columns that nothing stands in."""
    rows = [[group.title, "measured", "ratio", "promised"], *(_row(each, group.compared) for each in group.results)]
    header, *others = zip(*(column for column in zip(*rows, strict=True) if any(column[1:])), strict=True)
    return markdown(header, others)


def of_curve(curve: Curve) -> str:
    """Return a curve as a table of two rows."""
    amounts, costs = zip(*curve.points, strict=True)
    head = [curve.along, *(f"{amount:,g}" for amount in amounts)]
    return markdown(head, [[f"{curve.unit}, {curve.name}", *map(number, costs)]])


def of_profile(profile: Profile) -> str:
    """Return the shares of a profile as a table."""
    return markdown(["module", profile.name], ([place, f"{share:.0%}"] for place, share in profile.shares))
