"""Fuzz one target: ``python -m fuzzing TARGET [libFuzzer's options]``, with atheris installed."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import atheris


def main() -> None:
    """Run libFuzzer on the target named, from its seeds."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["asgi_llm_gate", "fuzzing"]):
        target = importlib.import_module(f"fuzzing.{name}")
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
