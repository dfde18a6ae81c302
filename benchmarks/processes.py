"""Processes on a core of their own, that end with their block whatever happens in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]

_TICKS = os.sysconf("SC_CLK_TCK")


class StartError(Exception):
    """A process did not come up."""


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and those it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def cpu_clock(pid: int) -> Callable[[], float]:
    """Return a function that tells the CPU time that a process has had, the user's and the system's, in seconds."""
    file = Path(f"/proc/{pid}/stat")

    def seconds() -> float:
        fields = file.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    return seconds


@contextmanager
def serving(
    command: Sequence[str | Path],
    port: int,
    *,
    core: int,
    env: Mapping[str, str] | None = None,
    patience: float = 30,
) -> Iterator[int]:
    """Run a server in a session of its own until the block ends, and give its process id once it listens.

    Args:
        command: What to run.
        port: The port of 127.0.0.1 that it will listen on.
        core: The core it runs on.
        env: Variables beside this process's own.
        patience: Seconds to wait until it listens.

    Raises:
        StartError: It ended before it listened, or never did.
    """
    # The package as it stands here, whatever is installed; not what would configure a gate.
    environ = {name: value for name, value in os.environ.items() if name != "ASGI_LLM_GATE_CONFIG"}
    environ |= {"PYTHONPATH": str(ROOT), **(env or {})}
    with ExitStack() as stack:
        output = stack.enter_context(TemporaryFile())
        with pinned(core), uninterrupted():
            process = subprocess.Popen(  # noqa: S603  # our own words
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
            )
            stack.callback(_end, process)
        try:
            _wait(process, port, time.monotonic() + patience)
        except StartError as exc:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise StartError(f"{' '.join(map(str, command))}: {exc}\n{said}") from None
        yield process.pid


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put ctrl-C off until the block's end: in the midst of a start, nobody would know whom to end."""
    interrupts: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for interrupt in interrupts:
            signal.raise_signal(interrupt)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and its workers, which are of its session."""
    with uninterrupted():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, until: float) -> None:
    while not _listens(port):
        if process.poll() is not None:
            raise StartError(f"it ended with status {process.returncode}")
        if time.monotonic() > until:
            raise StartError("it does not listen")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
