"""A configuration file put together with the files that it includes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.config_file import ConfigError, read
from asgi_llm_gate.values import WrongValueError, resolved

if TYPE_CHECKING:
    from pathlib import Path

# How many files may include one another.
MAX_DEPTH = 10

# Settings that are guards, and models, add up: no file can take another's away.
_ADD_UP = frozenset({"model_list", "litellm_settings.callbacks", "general_settings.enforced_params"})


class Files:
    """What some files say together.

    Attributes:
        content: The sections of all of them.
        paths: The files, in the order in which they were read.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        """Read a file and those that it includes, each once.

        Raises:
            ConfigError: One of them can't be read, includes itself, or says something else than another.
        """
        self.content: dict[Any, Any] = {}
        self.paths: list[Path] = []
        self._environ = environ
        self._read: set[Path] = set()
        self._said_by: dict[str, Path] = {}
        try:
            self._add(path, ())
        except RecursionError as exc:
            raise ConfigError(f"{path}: nested too deep") from exc

    def _add(self, path: Path, above: tuple[Path, ...]) -> None:
        content = read(path)
        real = path.resolve()
        if real in above:
            raise ConfigError(f"{path}: includes itself")
        if real in self._read:
            return
        if len(above) == MAX_DEPTH:
            raise ConfigError(f"{path}: more than {MAX_DEPTH} files include one another")
        self._read.add(real)
        self.paths.append(path)
        included = content.pop("include", None)
        self.content = self._merged(self.content, content, "", path)
        for index, name in enumerate(self._names(included, path)):
            try:
                self._add(path.parent / name, (*above, real))
            except ConfigError as exc:
                raise ConfigError(f"{path}: include[{index}]: {exc}") from exc

    def _names(self, included: Any, path: Path) -> list[str]:
        given = [included] if isinstance(included, str) else [] if included is None else included
        try:
            names = resolved(given, self._environ)
        except WrongValueError as exc:
            raise ConfigError(f"{path}: include{exc.at}: {exc}") from exc
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(f"{path}: include: expected a list of files")
        return names

    def _merged(self, ours: Mapping[Any, Any], theirs: Mapping[Any, Any], where: str, path: Path) -> dict[Any, Any]:
        merged = dict(ours)
        for name, value in theirs.items():
            merged[name] = self._either(merged.get(name), value, f"{where}{name}", path)
        return merged

    def _either(self, ours: Any, theirs: Any, place: str, path: Path) -> Any:
        said_by = self._said_by.setdefault(place, path)
        if "." not in place and isinstance(ours, Mapping | None) and isinstance(theirs, Mapping):
            return self._merged(ours or {}, theirs, f"{place}.", path)
        if ours is None or ours == theirs:
            return theirs
        if place in _ADD_UP:
            return [*_listed(ours), *_listed(theirs)]
        raise ConfigError(f"{path}: {place}: {said_by} has it too, and otherwise")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
