"""What a run found: figures with their bounds, in memory and in a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Result:
    """One figure, and the bound it is held to.

    Attributes:
        name: What was measured.
        value: The figure, in `unit`.
        unit: Such as ``µs`` or ``requests/s``.
        ratio: The figure over what it is compared with; None, it stands for itself.
        bound: The most that the ratio, or without one the figure, is to be; None, nothing is promised.
        least: The bound is the least instead.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    bound: float | None = None
    least: bool = False

    @property
    def verdict(self) -> str:
        """``ok``, ``MISS``, or nothing where nothing is promised."""
        if self.bound is None:
            return ""
        held = self.value if self.ratio is None else self.ratio
        return "ok" if (held >= self.bound if self.least else held <= self.bound) else "MISS"


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one kind, in order.

    Attributes:
        name: What they are found by.
        title: What they are of.
        compared: What ratios are to, as it follows a number.
        results: The figures.
    """

    name: str
    title: str
    compared: str
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """How a cost grows with something.

    Attributes:
        name: The cost, of what.
        along: What it grows with.
        unit: The unit of the cost.
        points: Pairs of an amount and the cost.
    """

    name: str
    along: str
    unit: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of one path goes.

    Attributes:
        name: The path.
        shares: Pairs of a place and its share of the time, the largest first.
    """

    name: str
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run.

    Attributes:
        groups: The figures.
        curves: How costs grow, where that was measured.
        profiles: Where time goes, where that was measured.
        left_out: What could not be measured, and why.
        machine: What it was measured with.
    """

    groups: tuple[Group, ...]
    curves: tuple[Curve, ...] = ()
    profiles: tuple[Profile, ...] = ()
    left_out: tuple[str, ...] = ()
    machine: dict[str, str] = field(default_factory=dict)

    def missed(self) -> list[Result]:
        """Return the figures that are over their bound, or under it."""
        return [result for group in self.groups for result in group.results if result.verdict == "MISS"]

    def results(self, group: str) -> tuple[Result, ...]:
        """Return the figures of a group; none where it was not measured."""
        return next((each.results for each in self.groups if each.name == group), ())

    def encode(self) -> bytes:
        """Write it as JSON, figures with four digits."""
        return orjson.dumps(_rounded(asdict(self)), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def decode(cls, encoded: bytes) -> Report:
        """Read what `encode` wrote."""
        report = orjson.loads(encoded)
        return cls(
            groups=tuple(
                Group(**{**group, "results": tuple(Result(**result) for result in group["results"])})
                for group in report["groups"]
            ),
            curves=tuple(Curve(**{**curve, "points": _pairs(curve["points"])}) for curve in report["curves"]),
            profiles=tuple(Profile(each["name"], _pairs(each["shares"])) for each in report["profiles"]),
            left_out=tuple(report["left_out"]),
            machine=report["machine"],
        )


def _pairs(lists: Sequence[Sequence[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((first, second) for first, second in lists)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
