"""The console script `asgi-llm-gate`; what it stands on comes with the extra `server`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: 0 when done, 1 when the address can't be had, 2 for a mistake in the arguments or the
            configuration, 3 when the start-up fails.
    """
    try:
        import click  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as exc:
        print(f"asgi-llm-gate needs {exc.name}: pip install 'asgi-llm-gate[server]'", file=sys.stderr)
        sys.exit(2)
    from asgi_llm_gate.commands import cli

    cli(prog_name="asgi-llm-gate")
