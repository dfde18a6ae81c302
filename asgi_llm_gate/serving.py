"""The command line's own server: a gate before the upstreams of a configuration, in uvicorn."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess

from asgi_llm_gate.config import CONFIG_VARIABLE, ConfigError, load_settings
from asgi_llm_gate.forwarder import Forwarder
from asgi_llm_gate.gate import LLMGate
from asgi_llm_gate.source import Source

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from asgi_llm_gate.settings import Settings

_BACKLOG = 2048

# Uvicorn's exit status when the app's start-up failed.
_FAILED_TO_START = 3


def own_settings(config: str | os.PathLike[str]) -> Settings:
    """Load the settings of a file into a process of the gate's own: handlers find its `environment_variables` there.

    Raises:
        ConfigError: Something is wrong with it.
    """
    os.environ.update(Source.of(config).variables())
    return load_settings(config, {})


def gate(config: str | os.PathLike[str]) -> LLMGate:
    """Make the gate of a configuration file, before the upstreams that it lists.

    Raises:
        ConfigError: Something is wrong with it, or there is no `model_list`.
    """
    settings = own_settings(config)
    if not settings.model_list:
        raise ConfigError(f"{os.fspath(config)}: model_list: name at least one model to serve")
    forwarder = Forwarder(
        model_list=settings.model_list,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
    return LLMGate(forwarder, **replace(settings, model_list=(), callback_settings={}).keywords())


def check_workers(settings: Settings, workers: int) -> None:
    """Refuse several processes where a callback counts over all of them (``shared_state``) and they share nothing.

    Raises:
        ConfigError: One line that names it.
    """
    shares = settings.cache is not None and settings.cache.redis_cache is not None
    counts = [type(callback).__name__ for callback in settings.callbacks if getattr(callback, "shared_state", False)]
    if workers > 1 and counts and not shares:
        what = f"{counts[0]} counts over all processes, and they share nothing without gate_settings.redis_url"
        raise ConfigError(f"--workers {workers}: {what}")


def worker() -> LLMGate:
    """Make the app of a worker process, from the file that the environment variable names."""
    start_logging()
    return gate(os.environ[CONFIG_VARIABLE])


def start_logging() -> None:
    """Show warnings, and what the gate itself has to say, on standard error."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("asgi_llm_gate").setLevel(logging.INFO)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to serve on; who connects waits until the server runs.

    Raises:
        OSError: The address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listener.detach())


def url(listener: socket.socket) -> str:
    """Return the base URL of a server on a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: ASGIApp | str, listener: socket.socket, *, workers: int = 1, shutdown_timeout: float) -> None:
    """Serve until SIGTERM or SIGINT.

    Then no new connection is taken, and open calls may go on.

    Args:
        app: The app, or the dotted name of its factory, as more than one worker needs.
        listener: The socket to serve on.
        workers: How many processes.
        shutdown_timeout: Seconds that open calls may go on.

    Raises:
        SystemExit: 0 after a signal; 3, the app's start-up failed.
    """
    config = uvicorn.Config(
        cast("Any", app),
        factory=isinstance(app, str),
        workers=workers,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=cast("int", shutdown_timeout),  # asyncio, which gets it, takes fractions
    )
    # When all is shut down, uvicorn raises the signal again that it was stopped by, for who was there before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    if workers > 1:
        supervisor = Multiprocess(config, [listener])
        supervisor.run()
        if any(process.exitcode == _FAILED_TO_START for process in supervisor.processes):
            sys.exit(_FAILED_TO_START)
    else:
        uvicorn.Server(config).run([listener])
