"""How much longer it takes to import the package than its dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure

PACKAGE = "asgi_llm_gate"
DEPENDENCIES = "anyio, httpx, orjson, python_multipart, starlette.requests, yaml"
BOUND = 1.3


def measure_import(rounds: int) -> Figure:
    """Import both in fresh interpreters, in turn, in so many rounds, and return the median."""
    with TemporaryDirectory() as bytecode:
        # Whether and where this machine keeps bytecode is not what is measured: the first import of each writes it.
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        pairs = [(_seconds(PACKAGE, environ), _seconds(DEPENDENCIES, environ)) for _ in range(rounds + 1)][1:]
    ratio = median(package / alone for package, alone in pairs)
    return Figure("import", median(package for package, _ in pairs) * 1e6, ratio, BOUND)


def _seconds(modules: str, environ: dict[str, str]) -> float:
    code = f"import time; start = time.process_time(); import {modules}; print(time.process_time() - start)"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=root, env=environ)  # noqa: S603  # our own words
    return float(done.stdout)
