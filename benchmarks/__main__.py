"""Measure, and print a table."""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import orjson

from benchmarks.disconnect import measure_disconnect
from benchmarks.imports import measure_import
from benchmarks.limiter import measure_limiter
from benchmarks.measure import Figure, measure
from benchmarks.rows import rows
from benchmarks.stalls import BOUND, Stall, measure_stalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Of a body's longest turn the shortest of so many counts.
_STALL_ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every row, print the table, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    figures = [
        *anyio.run(partial(measure, rows(), options.rounds)),
        measure_import(options.rounds),
        anyio.run(measure_disconnect, options.rounds),
        *measure_limiter(options.rounds),
    ]
    stalls = anyio.run(measure_stalls, min(options.rounds, _STALL_ROUNDS))
    sys.stdout.write(_table(figures) + "\n" + _stall_table(stalls))
    if options.json is not None:
        options.json.write_bytes(_report(figures, stalls, options.rounds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure what the gate costs beside the bare app, as a ratio to decoding and encoding the same "
        "JSON once. A chunk's ratio is to the chunk, the import's to importing the dependencies alone, and that of a "
        "disconnect, which is the time until the upstream knows of it, to a tenth of a second. Then the longest that "
        "accepted bodies keep the loop from other calls, for the worst of each kind.",
        epilog="The bounds are not enforced yet: the exit status is 0 whatever is over.",
    )
    parser.add_argument("--rounds", type=_rounds, default=15, metavar="N", help="rounds to measure (default 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    return parser


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError("expected a whole number from 1")
    return rounds


def _table(figures: Iterable[Figure]) -> str:
    lines = [f"{'row':40} {'µs':>10} {'ratio':>7} {'bound':>6}"]
    lines += [f"{f.name:40} {f.microseconds:10.2f} {f.ratio:7.2f} {f.bound:6g}  {f.verdict}" for f in figures]
    return "\n".join(lines) + "\n"


def _stall_table(stalls: Iterable[Stall]) -> str:
    lines = [f"{'longest turn of the loop for a body of':40} {'ms':>10} {'':7} {'bound':>6}"]
    lines += [f"{stall.name:40} {stall.milliseconds:10.1f} {'':7} {BOUND:6g}  {stall.verdict}" for stall in stalls]
    return "\n".join(lines) + "\n"


def _report(figures: Iterable[Figure], stalls: Iterable[Stall], rounds: int) -> bytes:
    report = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rounds": rounds,
        "rows": [{**asdict(figure), "verdict": figure.verdict} for figure in figures],
        "stalls": [{**asdict(stall), "bound": BOUND, "verdict": stall.verdict} for stall in stalls],
    }
    return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    main()
