"""What a run is made with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from benchmarks.peers import PORTKEY_VERSION, cache
from benchmarks.served import LITELLM, NGINX, PORTKEY
from benchmarks.subjects import nginx

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

_PACKAGES = ("orjson", "anyio", "starlette", "uvicorn", "uvloop", "httpx", "aiohttp")

_LITELLM_VERSION = "from importlib.metadata import version; print(version('litellm'))"


def machine(servers: Collection[str]) -> dict[str, str]:
    """Return the machine, Python, and the versions of what counts most, with those of servers that were measured."""
    found = {"machine": f"{os.cpu_count()} cores, {platform.machine()}", "python": platform.python_version()}
    found |= {name: known for name in _PACKAGES if (known := _version(name))}
    if NGINX in servers:
        found["nginx"] = said_version([nginx() or "nginx", "-v"])
    if LITELLM in servers:
        found["litellm"] = said_version([cache() / "litellm-proxy" / "bin" / "python", "-c", _LITELLM_VERSION])
    if PORTKEY in servers:
        found["portkey"] = PORTKEY_VERSION
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def said_version(command: Sequence[str | Path]) -> str:
    """Return the version that a program says that it has."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else "unknown"
