"""Run the command line as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent

_PROGRAM = "from asgi_llm_gate.cli import main; main()"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", _PROGRAM, *map(str, arguments)]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: this one's without what would configure the gate, and more."""
    kept = {name: value for name, value in os.environ.items() if name != "ASGI_LLM_GATE_CONFIG"}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def run(*arguments: str | Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=environment(env),
        timeout=60,
    )


@dataclass
class Served:
    """A process that serves.

    `lines` is what it printed up to the line with its URL. After the block `output` is the rest, `errors` what it wrote
    on standard error, `status` its exit status.
    """

    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    output: str = ""
    errors: str = ""
    status: int | None = None

    def stop(self, signal: int) -> None:
        self.process.send_signal(signal)

    def wait(self) -> None:
        self.output, self.errors = self.process.communicate(timeout=60)
        self.status = self.process.returncode


@contextmanager
def serving(argv: list[str], *, url_in: str = "stdout", env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Start a server process, wait for the line that says where it serves, and end it with the block."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment(env or {}), cwd=ROOT)
    served = Served(process, "", [])
    try:
        stream, found = getattr(process, url_in), None
        while not found:
            served.lines.append(stream.readline())
            assert served.lines[-1], f"it ended without serving: {served.lines}"
            found = re.search(r"(?:Serving .*|running) on (http://\S+?),?\s", served.lines[-1])
        served.url = found[1]
        yield served
    finally:
        process.terminate()
        served.wait()
