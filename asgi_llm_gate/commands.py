"""The commands of `asgi-llm-gate`."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click
from click.core import ParameterSource

from asgi_llm_gate import __version__, moving, serving, trial
from asgi_llm_gate.config import CONFIG_VARIABLE, ConfigError
from asgi_llm_gate.coverage import report
from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.demo.handler import DemoHandler
from asgi_llm_gate.demo.trials import guide
from asgi_llm_gate.gate import LLMGate
from asgi_llm_gate.source import Source

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

logger = logging.getLogger("asgi_llm_gate")

_FILE = click.Path(path_type=Path)
_DEMO_SHUTDOWN_TIMEOUT = 1.0


class _MistakeError(click.ClickException):
    """One line on standard error, and the exit status of a mistake."""

    exit_code = 2


def _address(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where to serve."""
    port = click.option("--port", default=4000, show_default=True, type=click.IntRange(0, 65535), help="0: any free.")
    return click.option("--host", default="127.0.0.1", show_default=True)(port(command))


@click.group(invoke_without_command=True, no_args_is_help=False)
@click.option("--config", type=_FILE, envvar=CONFIG_VARIABLE, show_envvar=True, help="The YAML file to serve.")
@_address
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes to serve with.")
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, config: Path | None, host: str, port: int, workers: int) -> None:
    """Serve the models of a configuration, with its call hooks before them."""
    if context.invoked_subcommand is not None:
        _refuse_own_options(context)
        return
    if config is None:
        raise click.UsageError("Give a --config to serve, or see what the gate does: asgi-llm-gate demo")
    serving.start_logging()
    with _mistakes_told():
        gate = serving.gate(config)
        serving.check_workers(gate.settings, workers)
    with _listening(host, port) as listener:
        logger.info("What is covered:\n%s", report(gate.settings))
        click.echo(f"Serving {config} on {serving.url(listener)}")
        timeout = gate.settings.shutdown_timeout
        if workers == 1:
            serving.run(gate, listener, shutdown_timeout=timeout)
        else:
            os.environ[CONFIG_VARIABLE] = str(config.resolve())
            serving.run("asgi_llm_gate.serving:worker", listener, workers=workers, shutdown_timeout=timeout)


@cli.command()
@_address
def demo(host: str, port: int) -> None:
    """Serve an echo model behind a handler, and print what to try."""
    serving.start_logging()
    app = LLMGate(EchoModel(), callbacks=[DemoHandler()], enforce_user_param=True)
    with _listening(host, port) as listener:
        url = serving.url(listener)
        click.echo(f"{guide(url)}\nServing the demo on {url}, ctrl-C stops it")
        serving.run(app, listener, shutdown_timeout=_DEMO_SHUTDOWN_TIMEOUT)


@cli.command()
@click.argument("config", type=_FILE)
def check(config: Path) -> None:
    """Say what a configuration covers, and what of a LiteLLM one is not served; exit status 2 for a mistake."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    with _mistakes_told():
        settings = serving.own_settings(config)
        keys = moving.report(Source.of(config).content)
    click.echo("\n".join((report(settings), *keys)))


@cli.command("try")
@click.argument("config", type=_FILE)
@click.argument("request_file", metavar="REQUEST", type=_FILE)
def try_(config: Path, request_file: Path) -> None:
    """Send one REQUEST, a JSON file or -, through the hooks of a configuration, without a network.

    Says what each hook changed and how long it took, what the app would get, and what the client would. A refusal is
    a result like any other; the exit status is 2 for a mistake in the files.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        request = trial.read_request(_content(request_file))
    except trial.RequestError as exc:
        raise _MistakeError(f"{request_file}: {exc}") from exc
    with _mistakes_told():
        settings = serving.own_settings(config)
    click.echo(trial.report(anyio.run(trial.run, settings, request), settings))


def _content(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as exc:
        raise trial.RequestError(str(exc.strerror)) from exc


def _refuse_own_options(context: click.Context) -> None:
    for parameter in context.command.params:
        if parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            command = context.invoked_subcommand
            raise click.UsageError(f"{parameter.opts[0]} stands before {command}, which would not see it")


@contextmanager
def _mistakes_told() -> Iterator[None]:
    try:
        yield
    except ConfigError as exc:
        raise _MistakeError(str(exc)) from exc


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = serving.listen(host, port)
    except OSError as exc:
        raise click.ClickException(f"can't serve on {host}:{port}: {exc.strerror}") from exc
    with listener:
        yield listener
