"""Running a handler file: once in a process, among its neighbours, in nobody's way."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file with its annotations left unread.

    Handlers are typed in from pages that use names in annotations without importing them, and that write
    ``Optional[dict, str, Exception]``, which Python refuses to evaluate.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source each time: Python's own cached code has its annotations read."""
        path = self.get_filename(fullname)
        code: CodeType = compile(self.get_data(path), path, "exec", flags=annotations.compiler_flag, dont_inherit=True)
        return code


class _Finder:
    """Finds one module: in a handler file."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Loader(fullname, str(self._path))
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def run(name: str, path: Path) -> ModuleType:
    """Return a handler file's module, run now if it has not been; it can import its neighbours while it runs.

    For one thread at a time.

    Args:
        name: The module's, dotted for a file in folders below the configuration's.
        path: The file, resolved.
    """
    known = _known(path)
    if known is not None:
        return known
    levels = name.count(".") + (path.name == "__init__.py")
    base = path.parents[levels]
    importlib.invalidate_caches()
    with _at_home(base):
        if not _is_free(name, base):
            # Another module of the name keeps it.
            name = _alias(name, base)
        with _first(sys.path, str(base)), _first(sys.meta_path, _Finder(name, path)):
            return importlib.import_module(name)


def _known(path: Path) -> ModuleType | None:
    """Return the module that a file was run as, under whatever name."""
    for module in list(sys.modules.values()):
        file = _file(module)
        if file is not None and file.endswith(path.name) and Path(file).resolve() == path:
            return module
    return None


def _is_free(name: str, base: Path) -> bool:
    """Tell whether no module from elsewhere has, or would get, a name or that of its top package."""
    top = _top(name)
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module without a spec
        return False
    if spec is None:
        return True
    places = {Path(place).resolve() for place in (spec.origin, *(spec.submodule_search_locations or ())) if place}
    return name not in sys.modules and not places.isdisjoint({base / top, base / f"{top}.py"})


@contextmanager
def _first(entries: list[Any], entry: object) -> Iterator[None]:
    """Put an entry before all others for as long as the block runs."""
    entries.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # a handler file took it out itself
            entries.remove(entry)


@contextmanager
def _at_home(base: Path) -> Iterator[None]:
    """Let a folder's files find each other, not those of the same names that another configuration's files brought.

    Of two modules of a name the first keeps it; the other waits under an alias for the next file of its folder. A
    block that fails leaves no module of the folder that was not there before.
    """
    own = {path.stem for path in base.glob("*.py")} | {path.parent.name for path in base.glob("*/__init__.py")}
    shared = {name for name in own if _came_along(name) and not _is_below(base, sys.modules[name])}
    held = _take(shared)
    sys.modules.update({module.__name__: module for module in _take_aliased(shared, base)})
    before = set(sys.modules)
    try:
        with ExitStack() as on_failure:
            on_failure.callback(lambda: _forget(set(sys.modules) - before, base))
            yield
            on_failure.pop_all()
    finally:
        sys.modules.update({_alias(name, base): module for name, module in _take(shared).items()})
        sys.modules.update(held)


def _came_along(name: str) -> bool:
    """Tell whether a module is there that Python would not find again: a handler file, or a neighbour of one."""
    file = _file(sys.modules[name]) if name in sys.modules and name != "__main__" else None
    if file is None:
        return False
    spec = importlib.machinery.PathFinder.find_spec(name)
    return spec is None or spec.origin != file


def _take(tops: set[str]) -> dict[str, ModuleType]:
    """Take modules of some names, and those below them, out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if _top(name) in tops}


def _take_aliased(tops: set[str], base: Path) -> list[ModuleType]:
    """Take a folder's modules of some names, and those below them, out of `sys.modules`, where they wait."""
    suffix = _alias("", base)
    waiting = [
        alias for alias, module in sys.modules.items() if alias.endswith(suffix) and _top(module.__name__) in tops
    ]
    return [sys.modules.pop(alias) for alias in waiting]


def _forget(names: set[str], base: Path) -> None:
    """Take a folder's own modules out of `sys.modules`; what is installed below it, as in a ``.venv``, stays."""
    tops = {top for top in map(_top, names) if _came_along(top) and _is_below(base, sys.modules[top])}
    for name in names:
        if _top(name) in tops:
            del sys.modules[name]


def _alias(name: str, base: Path) -> str:
    return f"{name.replace('.', '_')}_{hashlib.sha256(str(base).encode()).hexdigest()[:16]}"


def _top(name: str) -> str:
    return name.partition(".")[0]


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__dict__", {}).get("__file__")  # past a lazy module's own `__getattr__`
    return file if isinstance(file, str) else None


def _is_below(base: Path, module: ModuleType) -> bool:
    return Path(_file(module) or "/").resolve().is_relative_to(base)
