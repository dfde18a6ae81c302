"""The benchmarks run, and report a figure for every row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import orjson
import pytest

from asgi_llm_gate.body import count_values
from asgi_llm_gate.settings import Settings
from benchmarks import measure
from benchmarks.__main__ import main
from benchmarks.limiter import measured
from benchmarks.measure import Figure
from benchmarks.rows import rows
from benchmarks.stalls import BODIES, Stall, _longest
from benchmarks.traffic import CALL

NAMES = [*(row.name for row in rows()), "import", "disconnect", *measured()]


def bench(*arguments):
    # A process of its own: coverage's tracer loses count of frames in thousands of cancelled coroutines (Python 3.11).
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, encoding="utf-8")


def test_every_row_has_a_positive_ratio(tmp_path):
    """The table and the file have the same rows, in the same order, and each of them costs something."""
    file = tmp_path / "figures.json"
    done = bench("--rounds", "1", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    costs, stalls = done.stdout.split("\n\n")
    printed = [line.rsplit(maxsplit=4) for line in costs.splitlines()[1:]]
    assert [name for name, *_ in printed] == NAMES
    assert [name for name, _, ratio, *_ in printed if float(ratio) <= 0] == []
    report = orjson.loads(file.read_bytes())
    assert report["rounds"] == 1
    assert [(row["name"], f"{row['ratio']:.2f}", row["verdict"]) for row in report["rows"]] == [
        (name, ratio, verdict) for name, _, ratio, _, verdict in printed
    ]
    printed = [line.rsplit(maxsplit=3) for line in stalls.splitlines()[1:]]
    assert [name.strip() for name, *_ in printed] == [row["name"] for row in report["stalls"]] == list(BODIES)
    assert [name for name, turn, *_ in printed if float(turn) <= 0] == []


@pytest.mark.parametrize("rounds", ["0", "-1", "some"])
def test_there_is_at_least_one_round(capsys, rounds):
    """A number of rounds that makes no sense is a mistake of the command line."""
    with pytest.raises(SystemExit, match="2"):
        main(["--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err


def test_help_says_that_bounds_are_not_enforced(capsys):
    """Nobody takes the exit status for a verdict."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "not enforced" in capsys.readouterr().out


@pytest.mark.parametrize(("ratio", "verdict"), [(4.9, "ok"), (5.0, "ok"), (5.1, "over")])
def test_a_bound_is_the_most_a_row_may_cost(ratio, verdict):
    """A figure on its bound is within it."""
    assert Figure("row", 1.0, ratio, 5).verdict == verdict


@pytest.mark.parametrize(("milliseconds", "verdict"), [(49.9, "ok"), (50.0, "ok"), (50.1, "MISS")])
def test_a_turn_of_more_than_50_ms_is_a_miss(milliseconds, verdict):
    """Nobody has to know the bound by heart."""
    assert Stall("body", milliseconds).verdict == verdict


def test_bodies_are_near_what_is_let_through():
    """Each of the worst bodies is nearly as large, or as heavy, as a body may be, and no larger or heavier."""
    settings = Settings()
    for name, body in BODIES.items():
        heavy = int(0.97 * settings.max_json_values)
        assert len(body) <= settings.max_body_bytes, name
        assert count_values(body, settings.max_json_values) <= settings.max_json_values, name
        near = len(body) > 0.97 * settings.max_body_bytes or count_values(body, heavy) > heavy
        assert near or name == "300,000 tokens", name


def test_a_body_that_is_refused_is_no_measure():
    """What the gate does not let through has no figure."""
    with pytest.raises(ValueError, match="not accepted"):
        anyio.run(_longest, b"[]")


def test_costs_are_what_the_gate_adds_to_the_bare_app():
    """The bare app's time is taken off in each round, and the median of the rounds counts."""
    row = rows()[1]
    figure = measure._figure(row, gated=[7e-6, 9e-6, 90e-6], bare=[1e-6, 1e-6, 1e-6], codec=[2e-6, 2e-6, 2e-6])
    assert (figure.microseconds, figure.ratio) == pytest.approx((8.0, 4.0))


def test_the_body_is_of_the_size_that_bounds_are_set_for():
    """The measured call has a body of about 1.6 kB."""
    assert 1_500 <= len(CALL.body) <= 1_700
