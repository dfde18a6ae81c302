"""Measure, print the figures, and say whether all bounds are held."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from benchmarks import pages, tables
from benchmarks.compare import RevisionError, compare, table
from benchmarks.curves import measure_curves, measure_memory
from benchmarks.load import LoadError
from benchmarks.machine import machine
from benchmarks.peers import InstallError, cache
from benchmarks.processes import StartError
from benchmarks.profiling import take_profiles
from benchmarks.results import Report
from benchmarks.served import Job, cores, jobs, litellm_jobs, measure_served, portkey_jobs
from benchmarks.subjects import nginx
from benchmarks.suite import measure_calls, measure_limits, measure_once, measure_turns, rated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Curve, Profile

# The most rounds of what takes long.
_SERVED_ROUNDS = 5
_CURVE_ROUNDS = 5

_PROFILED_CALLS = 5_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says.

    Raises:
        SystemExit: 1, a bound is missed, or something could not be measured; 2, a mistake in the arguments;
            130, it was interrupted.
    """
    options = _parser().parse_args(arguments)
    # Ended by a signal, the servers that are up are ended too, as on ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(options)
    except (LoadError, StartError, RevisionError) as exc:
        sys.exit(f"scripts/bench: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(options: argparse.Namespace) -> None:
    if options.redraw:
        pages.write(pages.stored())
        return
    if options.compare is not None:
        sys.stdout.write(table(options.compare, compare(options.compare, options.rounds)))
        return
    report = _measured(options)
    sys.stdout.write(tables.terminal(report))
    for why in report.left_out:
        sys.stderr.write(f"\n*** LEFT OUT: {why}\n")
    if options.json is not None:
        options.json.write_bytes(report.encode())
    if options.write:
        pages.write(report)
    if missed := report.missed():
        names = ", ".join(f"{each.name} ({each.unit})" for each in missed)
        sys.exit(f"\nscripts/bench: {len(missed)} bounds missed: {names}")


def _measured(options: argparse.Namespace) -> Report:
    left_out: list[str] = []
    # First what can fail.
    servers = [] if options.in_process else _servers(options, left_out)
    # While this process holds little else: the garbage collector, which large bodies set off, walks through all of it.
    turns = measure_turns(options.rounds)
    groups = [
        measure_calls(options.rounds),
        measure_limits(options.rounds),
        measure_once(options.rounds, memory=bool(servers)),
        *rated(servers),
        turns,
    ]
    curves: list[Curve] = []
    profiles: list[Profile] = []
    if options.curves or options.write:
        rounds = min(options.rounds, _CURVE_ROUNDS)
        curves = [*anyio.run(measure_curves, rounds), *([measure_memory(1)] if servers else [])]
        profiles = anyio.run(take_profiles, _PROFILED_CALLS)
    return Report(
        tuple(groups), tuple(curves), tuple(profiles), tuple(left_out), machine({job.name for job in servers})
    )


def _servers(options: argparse.Namespace, left_out: list[str]) -> list[Job]:
    """Measure the servers, and note those that can't be."""
    chosen = cores()
    if chosen is None:
        left_out.append("servers and memory, because they need Linux and two cores")
        return []
    if nginx() is None:
        left_out.append("the rows over nginx, because it is not installed")
    servers = jobs()
    for add in (litellm_jobs, portkey_jobs) if options.peers or options.write else ():
        try:
            servers += add()
        except InstallError as exc:
            left_out.append(str(exc))
    measure_served(servers, min(options.rounds, _SERVED_ROUNDS), *chosen)
    return servers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure what the gate costs. In process: what it adds to the bare app, as a ratio to decoding and "
        "encoding the same JSON once. As a server on one core, all else on another: calls and streams a second, beside "
        "the app without the gate and beside nginx. Then memory, the import, and the longest that accepted bodies keep "
        "the loop from other calls.",
        epilog="The exit status is 1 where a bound is missed. Less than 5 minutes without --peers and --curves.",
    )
    parser.add_argument("--rounds", type=_rounds, default=15, metavar="N", help="rounds to measure (default 15)")
    parser.add_argument("--peers", action="store_true", help=f"LiteLLM's and Portkey's gateways too, kept in {cache()}")
    parser.add_argument("--curves", action="store_true", help="how costs grow, and a profile, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--in-process", action="store_true", help="leave out servers and memory")
    extent.add_argument("--write", action="store_true", help="measure all of it, and put it into file, chart and pages")
    parser.add_argument("--redraw", action="store_true", help="make chart and pages from the file, without measuring")
    parser.add_argument("--compare", metavar="REV", help="the rows in process, of a revision and as they stand here")
    return parser


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError("expected a whole number from 1")
    return rounds


if __name__ == "__main__":
    main()
