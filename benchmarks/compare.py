"""The rows of two revisions side by side: the one that stands here, and one that git knows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
import orjson

from benchmarks.measure import Figure, measure
from benchmarks.processes import ROOT
from benchmarks.rows import rows

if TYPE_CHECKING:
    from pathlib import Path

# Rounds in one process: then the other revision has its turn, in another.
_ROUNDS_AT_ONCE = 3

Pair = tuple[Figure, Figure]


class RevisionError(Exception):
    """A revision is not known, or the rows do not run on it."""


def compare(revision: str, rounds: int) -> list[Pair]:
    """Measure both by turns, and return each row's medians: the revision's, then this one's.

    Raises:
        RevisionError: git does not know the revision, or the rows do not run on it.
    """
    turns = -(-rounds // _ROUNDS_AT_ONCE)
    at_once = min(rounds, _ROUNDS_AT_ONCE)
    with TemporaryDirectory() as folder:
        unpack(revision, folder)
        both = [(_measured([folder, ROOT], at_once), _measured([ROOT], at_once)) for _ in range(turns)]
    before, after = ([turn[which] for turn in both] for which in (0, 1))
    return list(zip(map(_median, *before), map(_median, *after), strict=True))


def unpack(revision: str, folder: str) -> None:
    """Put the package of a revision into a folder.

    Raises:
        RevisionError: git does not know the revision.
    """
    command = ["git", "archive", revision, "asgi_llm_gate"]
    done = subprocess.run(command, check=False, capture_output=True, cwd=ROOT)  # noqa: S603
    if done.returncode:
        raise RevisionError(done.stderr.decode(errors="replace").strip())
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _measured(paths: list[str | Path], rounds: int) -> list[Figure]:
    """Measure in a process that imports from these folders, the first of which has the package."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-P", "-m", "benchmarks.compare", str(rounds)]
    done = subprocess.run(command, check=False, capture_output=True, env=environ)  # noqa: S603
    if done.returncode:
        raise RevisionError(done.stderr.decode(errors="replace")[-2000:])
    return [Figure(*figure) for figure in orjson.loads(done.stdout)]


def _median(*figures: Figure) -> Figure:
    first = figures[0]
    microseconds, ratio = (median(getattr(each, name) for each in figures) for name in ("microseconds", "ratio"))
    return Figure(first.name, microseconds, ratio, first.bound)


def table(revision: str, pairs: list[Pair]) -> str:
    """Return the comparison as text."""
    lines = [f"{'row':42} {revision[:10] + ' µs':>14} {'here µs':>10} {'ratios':>16} {'change':>8}"]
    for before, after in pairs:
        ratios = f"{before.ratio:.2f} → {after.ratio:.2f}"
        change = f"{after.ratio / before.ratio - 1:+.0%}"
        lines.append(f"{after.name:42} {before.microseconds:14.2f} {after.microseconds:10.2f} {ratios:>16} {change:>8}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measured = anyio.run(partial(measure, rows(), int(sys.argv[1])))
    sys.stdout.buffer.write(orjson.dumps([[f.name, f.microseconds, f.ratio, f.bound] for f in measured]))
