"""Other projects' gateways, each installed once into a folder of the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import orjson

from benchmarks.processes import free_port, serving
from benchmarks.subjects import Running, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds until one listens, and until npm has tried it.
_PATIENCE = 120

PORTKEY_VERSION = "1.15.2"

_PACKAGE = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": PORTKEY_VERSION},
    # The releases of its server that work with the gateway: the newest do not.
    "overrides": {"@hono/node-server": "1.13.5", "hono": "4.9.7"},
}

# It listens on every address of the machine unless it is stopped from that.
_LOOPBACK = """
const { Server } = require('net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...others) {
  if (first && typeof first === 'object') return listen.call(this, { ...first, host: '127.0.0.1' }, ...others);
  return listen.call(this, first, '127.0.0.1', ...others.filter((other) => typeof other === 'function'));
};
"""


class InstallError(Exception):
    """A gateway can't be installed here."""


def cache() -> Path:
    """Return the folder that gateways are installed into."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "asgi-llm-gate")


def install_litellm(folder: Path) -> Path:
    """Install LiteLLM's proxy into a folder, unless it is there, and return its program.

    Raises:
        InstallError: pip does not install it.
    """
    program = folder / "bin" / "litellm"
    if not _is_whole(folder):
        _run([sys.executable, "-m", "venv", "--clear", folder])
        _run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "litellm[proxy]"])
        _set_whole(folder)
    return program


def install_portkey(folder: Path) -> Path:
    """Install Portkey's gateway into a folder, unless it is there, and return its script.

    Raises:
        InstallError: There is no npm and node, or npm does not install it.
    """
    if not _is_whole(folder):
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise InstallError("node and npm are not installed")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_bytes(orjson.dumps(_PACKAGE))
        (folder / "loopback.cjs").write_text(_LOOPBACK)
        _run([npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--silent"])
        _set_whole(folder)
    return folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def _is_whole(folder: Path) -> bool:
    return (folder / "installed").exists()


def _set_whole(folder: Path) -> None:
    (folder / "installed").touch()


def _run(command: list[str | Path]) -> None:
    sys.stderr.write(f"{' '.join(map(str, command))} ...\n")
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603  # our own words
    if done.returncode:
        raise InstallError(done.stdout.decode(errors="replace")[-2000:])


class LiteLLM:
    """LiteLLM's proxy, with the handler and the configuration that the gate's command line has."""

    def __init__(self, program: Path, callback: str) -> None:
        self._program = program
        self._callback = callback

    @contextmanager
    def __call__(self, core: int, upstream: int) -> Iterator[Running]:
        """Run it."""
        port = free_port()
        with TemporaryDirectory() as folder:
            config = write_config(folder, self._callback, upstream)
            command: list[str | Path] = [self._program, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
            env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
            with serving(command, port, core=core, env=env, patience=_PATIENCE) as pid:
                yield Running(pid, port)


class Portkey:
    """Portkey's gateway, with nothing configured: it runs no handlers."""

    def __init__(self, script: Path) -> None:
        self._script = script

    @contextmanager
    def __call__(self, core: int, upstream: int) -> Iterator[Running]:
        """Run it."""
        port = free_port()
        loopback = self._script.parents[4] / "loopback.cjs"
        command: list[str | Path] = ["node", "--require", loopback, self._script, f"--port={port}", "--headless"]
        headers = {
            "authorization": "Bearer sk-upstream",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        }
        with serving(command, port, core=core, patience=_PATIENCE) as pid:
            yield Running(pid, port, headers=tuple(headers.items()))
