"""The benchmarks run, report a figure for every row, and know a missed bound when they see one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asgi_llm_gate.body import count_values
from asgi_llm_gate.settings import Settings
from benchmarks import __main__ as program
from benchmarks import chart, compare, curves, machine, measure, pages, profiling, tables
from benchmarks.curves import _chosen, _costs, _crowded, _hooked, _of_size, _text_hooked
from benchmarks.held import memory_of_held
from benchmarks.limiter import measured
from benchmarks.load import Measured
from benchmarks.measure import Figure
from benchmarks.peers import InstallError
from benchmarks.results import Curve, Group, Profile, Report, Result
from benchmarks.rows import rows
from benchmarks.served import CHECKED, GATE, GATED, HOSTED, LITELLM, NGINX, PORTKEY, Job
from benchmarks.stalls import BODIES, _longest
from benchmarks.suite import rated
from benchmarks.traffic import CALL
from tests.commandline import ROOT
from tests.services import require


def bench(*arguments):
    # A process of its own: coverage's tracer loses count of frames in thousands of cancelled coroutines (Python 3.11).
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def test_every_row_has_a_figure_and_the_exit_status_is_the_verdict(tmp_path):
    """The table and the file have the same rows, each costs something, and status 1 says that a bound is missed."""
    file = tmp_path / "figures.json"
    done = bench("--in-process", "--rounds", "1", "--json", str(file))
    report = Report.decode(file.read_bytes())
    calls, limits, once, turns = report.groups
    assert [each.name for each in calls.results] == [row.name for row in rows()]
    assert [each.name for each in limits.results] == measured()
    assert len(once.results) == 2
    assert [each.name for each in turns.results] == list(BODIES)
    assert [each.name for group in report.groups for each in group.results if each.value <= 0] == []
    printed = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [line.endswith("MISS") for line in printed] == [
        each.verdict == "MISS" for group in report.groups for each in group.results
    ]
    assert done.returncode == bool(report.missed())
    assert [each.name for each in report.missed() if each.name not in done.stderr] == []


@pytest.mark.parametrize("rounds", ["0", "-1", "some"])
def test_there_is_at_least_one_round(capsys, rounds):
    """A number of rounds that makes no sense is a mistake of the command line."""
    with pytest.raises(SystemExit, match="2"):
        program.main(["--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err


def missed(value, ratio, bound, *, least=False):
    return Result("row", value, "µs", ratio, bound, least=least).verdict


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (missed(100, 4.9, 5), "ok"),
        (missed(100, 5.0, 5), "ok"),
        (missed(1, 5.1, 5), "MISS"),
        (missed(5.0, None, 5), "ok"),
        (missed(5.1, None, 5), "MISS"),
        (missed(1, 0.8, 0.8, least=True), "ok"),
        (missed(1, 0.79, 0.8, least=True), "MISS"),
        (missed(1, None, None), ""),
        (missed(1, 7, None), ""),
    ],
)
def test_a_bound_is_the_most_or_the_least(verdict, expected):
    """A figure on its bound is within it; a ratio is what counts where there is one."""
    assert verdict == expected


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


@pytest.mark.parametrize("kilobytes", [1, 2, 16, 1000])
def test_a_body_is_of_the_size_that_its_point_says(kilobytes):
    """The curve's amounts are those that are sent, to the byte or one beside."""
    traffic, _ = _of_size(kilobytes)
    assert abs(len(traffic.body) - kilobytes * 1000) <= 1


@pytest.mark.parametrize("make", [_of_size, _hooked, _text_hooked, _chosen, _crowded])
def test_each_point_of_a_curve_is_measured(monkeypatch, make):
    """What is sent goes through the gate, and has a cost for its amount."""
    monkeypatch.setattr(measure, "ROUND", 0)
    monkeypatch.setattr(curves, "_CHUNKS_OF_EACH", 2)
    ((amount, cost),) = anyio.run(_costs, [2], [make(2)], 1)
    assert amount == 2
    assert cost == cost


def test_streams_that_are_held_take_memory():
    """What the gate holds for one is more than the bare app does, by kilobytes."""
    assert memory_of_held(300, 1) > 1


# In a process of its own, as above.
PROFILED = """
import sys
import anyio
from benchmarks.profiling import take_profiles
from benchmarks.results import Report

sys.stdout.buffer.write(Report((), profiles=anyio.run(take_profiles, 20)).encode())
"""


def test_a_profile_has_the_modules_that_a_call_goes_through():
    """Those that take the most come first, and all shares together are the whole."""
    done = subprocess.run([sys.executable, "-c", PROFILED], cwd=ROOT, capture_output=True, check=True)
    for profile in Report.decode(done.stdout).profiles:
        places, shares = zip(*profile.shares, strict=True)
        assert sum(shares) == pytest.approx(1, rel=0.001)
        assert list(shares[:-1]) == sorted(shares[:-1], reverse=True)
        assert [place for place in places if place.endswith(".py")] != []


@pytest.mark.parametrize(
    ("seconds", "shares"),
    [
        ({"a": 1.0, "b": 3.0}, (("b", 0.75), ("a", 0.25))),
        ({"a": 99.0, "b": 1.0}, (("a", 0.99), ("all other modules", 0.01))),
        (
            dict.fromkeys("abcdefghij", 1.0),
            (*((name, 0.1) for name in "abcdefgh"), ("all other modules", 0.2)),
        ),
    ],
)
def test_small_shares_are_put_together(seconds, shares):
    """Few places are named, none of them with next to nothing."""
    found = profiling.shares(seconds)
    assert [place for place, _ in found] == [place for place, _ in shares]
    assert [share for _, share in found] == pytest.approx([share for _, share in shares])


def job(name, *rates, streamed=False):
    made = Job(name, None, streamed=streamed)
    for rate in rates:
        made.add(Measured(rate, 0.5))
    return made


def test_rates_are_set_beside_what_they_are_promised_over():
    """The gate over the app, over nginx and over LiteLLM's proxy, each with its bound; others without one."""
    whole = [
        job(HOSTED, 100),
        job(GATED, 90),
        job(CHECKED, 95),
        job(NGINX, 1000),
        job(GATE, 200),
        job(LITELLM, 2),
        job(PORTKEY, 10),
    ]
    streamed = [job(NGINX, 100, streamed=True), job(GATE, 40, streamed=True)]
    found = {
        group.name: [(each.name, each.ratio, each.bound, each.verdict) for each in group.results]
        for group in rated([*whole, *streamed])
    }
    costs = found.pop("cpu")
    assert len(costs) == len(whole) + len(streamed)
    assert found == {
        "hosted": [(HOSTED, None, None, ""), (GATED, 0.9, 0.8, "ok"), (CHECKED, 0.95, 0.8, "ok")],
        "proxied": [
            (NGINX, None, None, ""),
            (GATE, 0.2, 0.15, "ok"),
            (LITELLM, 0.002, None, ""),
            (PORTKEY, 0.01, None, ""),
        ],
        "streamed": [(NGINX, None, None, ""), (GATE, 0.4, 0.5, "MISS")],
        "peers": [("asgi-llm-gate", 100, 50, "ok")],
    }


def test_without_nginx_nothing_is_promised_over_it():
    """The rate is told, and has nothing to be compared with."""
    (only, _) = rated([job(GATE, 200)])
    assert [(each.value, each.ratio, each.verdict) for each in only.results] == [(200, None, "")]


CALLS = (Result("a call", 9.87654, "µs", 1.23456, 5), Result("b", 0.5, "µs", 9, 5))
HOSTS = (Result("the app", 12345.6, "requests/s"), Result("gate", 5, "requests/s", 0.9, 0.8, least=True))

REPORT = Report(
    groups=(
        Group("call", "added", "times the codec", CALLS),
        Group("hosted", "a second", "of it", HOSTS),
        Group("streamed", "a second", "of it", (Result("gate", 5, "streams/s", 0.004),)),
        Group("turns", "turns", "", (Result("a body", 60.0, "ms", None, 50),)),
    ),
    curves=tuple(Curve(f"cost {number}", "kB", "µs", ((1, 2.5), (1000, 2500.0))) for number in range(4)),
    profiles=(Profile("a call", (("body.py", 0.755), ("orjson", 0.245))),),
    left_out=("nginx, because",),
    machine={"python": "3.11.7", "machine": "2 cores", "orjson": "3.13"},
)


def test_a_report_is_read_as_it_was_written():
    """Figures have four digits in the file, and say the same afterwards."""
    encoded = REPORT.encode()
    assert b'"value": 9.877,' in encoded
    again = Report.decode(encoded)
    assert again.encode() == encoded
    assert replace(again, groups=()) == replace(REPORT, groups=())
    assert [each.name for each in again.missed()] == [each.name for each in REPORT.missed()] == ["b", "a body"]
    assert again.results("hosted")[0].value == 12350
    assert again.results("nosuch") == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.96, "100"), (54.04, "54"), (1.234, "1.23"), (0.456, "0.46"), (0.0042, "0.004"), (0, "0")],
)
def test_numbers_have_few_digits(value, text):
    """As many as are read."""
    assert tables.number(value) == text


def test_tables_say_what_is_promised_and_what_is_missed():
    """In Markdown: the promises in one table, the figures of a group in another, curves and profiles."""
    assert tables.summary(REPORT) == (
        "| what | measured | ratio | promised |\n| --- | --- | --- | --- |\n"
        "| a call | 9.88 µs | 1.23 times the codec | ≤ 5 |\n"
        "| b | 0.50 µs | 9 times the codec | ≤ 5, missed |\n"
        "| gate | 5 requests/s | 0.90 of it | ≥ 0.8 |\n"
    )
    assert tables.of_groups(REPORT, "turns", "streamed") == (
        "| a second | measured | ratio |\n| --- | --- | --- |\n| gate | 5 streams/s | 0.004 of it |\n\n"
        "| turns | measured | promised |\n| --- | --- | --- |\n| a body | 60 ms | ≤ 50 ms, missed |\n"
    )
    assert (
        tables.of_curve(REPORT.curves[0]) == "| kB | 1 | 1,000 |\n| --- | --- | --- |\n| µs, cost 0 | 2.5 | 2,500 |\n"
    )
    assert tables.of_profile(REPORT.profiles[0]) == (
        "| module | a call |\n| --- | --- |\n| body.py | 76% |\n| orjson | 24% |\n"
    )


def test_the_terminal_shows_each_verdict():
    """One line a figure, below its group's title."""
    lines = tables.terminal(REPORT).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("  ")] == [
        "ok", "MISS", "requests/s", "ok", "0.004", "MISS",
    ]  # fmt: skip


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Keep what is checked in from what a test writes."""
    page = tmp_path / "page.md"
    page.write_text(
        "# Costs\n<!-- bench: summary -->\nold\n<!-- /bench -->\nbetween\n<!-- bench: conditions -->\n<!-- /bench -->\n"
    )
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results" / "latest.json")
    monkeypatch.setattr(pages, "CHART", tmp_path / "chart.png")
    monkeypatch.setattr(pages, "PAGES", (page,))
    return page


def test_what_is_written_can_be_made_again(checkout):
    """Figures, chart and pages in one go; from the figures alone the same again."""
    pages.write(REPORT)
    text = checkout.read_text()
    assert text.startswith("# Costs\n<!-- bench: summary -->\n\n| what |")
    assert "old" not in text
    assert "\nbetween\n" in text
    assert "Python 3.11.7, 2 cores, orjson 3.13.\nLeft out: nginx, because.\n" in text
    assert pages.CHART.read_bytes().startswith(b"\x89PNG")
    figures = pages.RESULTS.read_bytes()
    checkout.write_text(text.replace("a call", "another"))
    pages.CHART.unlink()
    program.main(["--redraw"])
    assert (checkout.read_text(), pages.RESULTS.read_bytes(), pages.CHART.exists()) == (text, figures, True)


def test_a_mark_that_names_no_part_is_a_mistake():
    """It would stay as it is for ever."""
    with pytest.raises(KeyError, match="nosuch"):
        pages.filled("<!-- bench: nosuch -->\n<!-- /bench -->\n", REPORT)


def test_a_chart_needs_no_curves(tmp_path):
    """Without them it is one row of bars."""
    chart.draw(replace(REPORT, curves=()), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_quotes_the_figures_that_are_checked_in(page):
    """What `scripts/bench --redraw` would write is there already."""
    text = page.read_text(encoding="utf-8")
    assert "<!-- bench: " in text
    assert pages.filled(text, pages.stored()) == text


def test_every_part_is_on_a_page():
    """Nothing is made that nobody reads."""
    text = "".join(page.read_text(encoding="utf-8") for page in pages.PAGES)
    assert [part for part in pages.PARTS if f"<!-- bench: {part} -->" not in text] == []


def test_the_figures_that_are_checked_in_are_held_to_the_bounds_of_now():
    """After a row or its bound has changed, what the pages say of it must be measured anew."""
    checked_in = {each.name: each.bound for each in pages.stored().results("call")}
    assert checked_in == {row.name: row.bound for row in rows()}
    assert pages.CHART.stat().st_size < 200_000


@pytest.mark.parametrize("curve", pages.stored().curves, ids=lambda curve: f"{curve.name} by {curve.along}")
def test_what_is_called_linear_is(curve):
    """In the figures that are checked in no cost grows much faster than what it grows with."""
    pairs = zip(curve.points, curve.points[1:], strict=False)
    assert [(one, next_) for one, next_ in pairs if next_[1] / one[1] > 1.5 * next_[0] / one[0]] == []


def options(**given):
    return argparse.Namespace(**{"write": False, "peers": False, "rounds": 1, **given})


def test_what_cannot_be_measured_is_told(monkeypatch):
    """Without two cores there are no servers, without nginx and other gateways fewer; each with the reason."""

    def cannot():
        raise InstallError("no npm")

    measured = []
    monkeypatch.setattr(program, "measure_served", lambda jobs, *rest: measured.append(rest))
    monkeypatch.setattr(program, "cores", lambda: None)
    told = []
    assert program._servers(options(), told) == []
    monkeypatch.setattr(program, "cores", lambda: (0, 1))
    monkeypatch.setattr(program, "nginx", lambda: None)
    monkeypatch.setattr(program, "litellm_jobs", lambda: [job(LITELLM, 1)])
    monkeypatch.setattr(program, "portkey_jobs", cannot)
    assert LITELLM in [each.name for each in program._servers(options(peers=True), told)]
    assert LITELLM not in [each.name for each in program._servers(options(), [])]
    assert measured == [(1, 0, 1)] * 2
    servers, without_nginx, peer = told
    assert ("Linux" in servers, "nginx" in without_nginx, peer) == (True, True, "no npm")


@pytest.mark.parametrize(
    ("command", "version"),
    [(["-c", "print('nginx version: nginx/1.22.1')"], "1.22.1"), (["-c", "print('none')"], "unknown")],
)
def test_programs_are_asked_for_their_version(command, version):
    """Whatever else they say."""
    assert machine.said_version([sys.executable, *command]) == version


def test_a_run_says_what_it_was_made_with(monkeypatch):
    """Packages that are installed, and the servers that were measured."""
    monkeypatch.setattr(machine, "said_version", lambda command: f"version of {Path(command[0]).name}")
    monkeypatch.setattr(machine, "_PACKAGES", ("orjson", "no-such-package"))
    assert list(machine.machine([])) == ["machine", "python", "orjson"]
    found = machine.machine([NGINX, LITELLM, PORTKEY])
    assert (found["nginx"], found["litellm"]) == ("version of nginx", "version of python")
    assert found["portkey"][0].isdigit()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Give a repository with a package of one revision."""
    require("git")
    root = tmp_path / "repository"
    (root / "asgi_llm_gate").mkdir(parents=True)
    (root / "asgi_llm_gate" / "__init__.py").write_text("old = True")
    who = ["-c", "user.name=n", "-c", "user.email=e@localhost"]
    for arguments in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    (root / "asgi_llm_gate" / "__init__.py").write_text("old = False")
    monkeypatch.setattr(compare, "ROOT", root)
    return root


def test_a_revision_is_what_git_knows_of_it(repository, tmp_path, capsys):
    """Not what stands in the folder; one that git does not know is a mistake."""
    compare.unpack("HEAD", str(tmp_path))
    assert (tmp_path / "asgi_llm_gate" / "__init__.py").read_text() == "old = True"
    with pytest.raises(SystemExit, match="no-such-revision"):
        program.main(["--compare", "no-such-revision"])


def test_a_revision_that_the_rows_do_not_run_on_is_told(repository):
    """With what Python says."""
    with pytest.raises(compare.RevisionError, match="ImportError"):
        compare._measured([repository, ROOT], 1)


def test_both_revisions_have_their_turns(monkeypatch, capsys, repository):
    """So many rounds each, by turns, and the medians side by side."""
    asked = []

    def measured(paths, rounds):
        asked.append((len(paths), rounds))
        cost = (10, 11, 90)[len(asked) // 2 % 3] if len(paths) == 2 else 5
        return [Figure("a call", cost, cost / 10, 6)]

    monkeypatch.setattr(compare, "_measured", measured)
    program.main(["--compare", "HEAD", "--rounds", "8"])
    assert asked == [(2, 3), (1, 3)] * 3
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "a",
        "call",
        "11.00",
        "5.00",
        "1.10",
        "→",
        "0.50",
        "-55%",
    ]
