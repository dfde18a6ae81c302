"""Where a configuration comes from, and the environment variables that it sets itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asgi_llm_gate.config_file import ConfigError
from asgi_llm_gate.includes import Files
from asgi_llm_gate.values import WrongValueError, resolved, shown

# LiteLLM's section of variables.
VARIABLES = "environment_variables"


class Source(NamedTuple):
    """A configuration as it was given.

    Attributes:
        base: The folder of its file; None if it is no file.
        content: Its sections, with those of the files that it includes; nothing in them is checked.
        prefix: How messages about it begin.
    """

    base: Path | None
    content: Mapping[Any, Any]
    prefix: str

    @classmethod
    def of(cls, config: Any, environ: Mapping[str, str] | None = None) -> Source:
        """Read a configuration: a file's path, or its content.

        Raises:
            ConfigError: It is neither, or can't be read.
        """
        if isinstance(config, Mapping | None):
            return cls(None, config or {}, "")
        if not isinstance(config, str | os.PathLike):
            raise ConfigError(f"config: expected a path or a mapping, got {type(config).__name__}")
        path = Path(os.fsdecode(config))
        files = Files(path, os.environ if environ is None else environ)
        return cls(path.parent, files.content, f"{', '.join(map(str, files.paths))}: ")

    def variables(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment variables that the configuration sets.

        One that is to be another variable, which is not set, is not set either: it is a mistake only where it is read.

        Raises:
            ConfigError: One of them can't be set.
        """
        values = self.content.get(VARIABLES)
        try:
            if not isinstance(values, Mapping | None):
                raise WrongValueError(f"expected values by name, got {type(values).__name__}")
            return dict(_variables(values or {}, os.environ if environ is None else environ))
        except WrongValueError as exc:
            raise ConfigError(f"{self.prefix}{VARIABLES}{exc.at}: {exc}") from exc


def _variables(values: Mapping[Any, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if not isinstance(name, str) or not name or set(name) & set("=\0"):
            raise WrongValueError(f"expected names of variables, got {shown(name)}")
        if not isinstance(value, str | int | float) or "\0" in str(value):
            raise WrongValueError(f"expected text, got {type(value).__name__}", f".{name}")
        try:
            yield name, str(resolved(value, environ))
        except WrongValueError:
            continue
