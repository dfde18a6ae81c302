"""Callbacks by name: the modules of handler files, found beside the configuration and run once."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgi_llm_gate import litellm_names
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.hooks import check, overrides

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType

# LiteLLM's names of hooks that it ships.
_BUILT_IN = frozenset(
    {
        *("aporia_prompt_injection", "azure_content_safety", "banned_keywords", "batch_redis_requests"),
        *("blocked_user_check", "detect_prompt_injection", "google_text_moderation", "hide_secrets"),
        *("lakera_prompt_injection", "llamaguard_moderations", "llmguard_moderations", "openai_moderations"),
        *("langfuse", "otel", "parallel_request_limiter", "presidio", "prometheus", "webhook"),
    }
)

_DOTTED = re.compile(r"[\w-]+(?:\.[\w-]+)+")

# `sys.path`, `sys.modules` and the names made importable belong to the process.
_loading = threading.RLock()


class LoadError(ValueError):
    """A callback can't be had, in one line that names it."""


def load(name: str, base: Path | None) -> object:
    """Return the object of a dotted name, whose last part is an attribute of the module before it.

    A file runs once in a process, however many names come from it.

    Args:
        name: Such as ``custom_callbacks.proxy_handler_instance``.
        base: The folder whose files come before installed modules.

    Raises:
        LoadError: There is no such module or attribute, or the module fails.
    """
    if not _DOTTED.fullmatch(name):
        built_in = name in _BUILT_IN
        raise LoadError(f"{name}: {'not served by this version' if built_in else 'expected module.attribute'}")
    module_name, _, attribute = name.rpartition(".")
    path = _file(module_name, base)
    with _loading, litellm_names.importable():
        try:
            module = importlib.import_module(module_name) if path is None else _run(module_name, path)
        except Exception as exc:
            raise LoadError(f"{name}: {_reason(exc, module_name, path)}") from exc
        try:
            return getattr(module, attribute)
        except AttributeError as exc:
            raise LoadError(f"{name}: {path.name if path else module_name} has no {attribute}") from exc


def load_callback(name: str, base: Path | None) -> object:
    """Return the callback of a dotted name.

    Raises:
        LoadError: It can't be loaded, or is none.
    """
    found = load(name, base)
    try:
        return as_callback(found)
    except LoadError as exc:
        raise LoadError(f"{name}: {exc}") from exc.__cause__


def as_callback(value: object) -> object:
    """Return a callback: the object itself, or an instance of a class.

    Raises:
        LoadError: It can't be made, or has no hook, or a hook takes arguments that there are not.
    """
    if isinstance(value, type):
        value = _instance(value)
    if not any(overrides(value, name) for name in STAGES):
        raise LoadError(f"{type(value).__name__} has no hook; a callback has some of {', '.join(STAGES)}")
    try:
        check(value)
    except TypeError as exc:
        raise LoadError(str(exc)) from exc
    return value


def _instance(kind: type) -> object:
    try:
        with _loading, litellm_names.importable():
            return kind()
    except Exception as exc:
        raise LoadError(f"{kind.__name__} can't be made: {_described(exc)}") from exc


class _HandlerFile(importlib.machinery.SourceFileLoader):
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
        loader = _HandlerFile(fullname, str(self._path))
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def _file(name: str, base: Path | None) -> Path | None:
    """Return the file of a module beside the configuration, or None where there is none."""
    if base is None:
        return None
    stem = base.resolve().joinpath(*name.split("."))
    return next((path for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if path.is_file()), None)


def _run(name: str, path: Path) -> ModuleType:
    """Return a handler file's module, run now if it has not been; it can import its neighbours while it runs."""
    known = _known(path)
    if known is not None:
        return known
    levels = name.count(".") + (path.name == "__init__.py")
    base = path.parents[levels]
    if not _is_free(name, base):
        # Another module of the name keeps it.
        name = f"{name.replace('.', '_')}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    importlib.invalidate_caches()
    with _first(sys.path, str(base)), _first(sys.meta_path, _Finder(name, path)):
        return importlib.import_module(name)


def _known(path: Path) -> ModuleType | None:
    """Return the module that a file was run as, under whatever name."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")  # past a lazy module's own `__getattr__`
        if isinstance(file, str) and file.endswith(path.name) and Path(file).resolve() == path.resolve():
            return module
    return None


def _is_free(name: str, base: Path) -> bool:
    """Tell whether no module from elsewhere has, or would get, a name or that of its top package."""
    top = name.partition(".")[0]
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


def _reason(exc: Exception, module_name: str, path: Path | None) -> str:
    if path is None:
        if isinstance(exc, ModuleNotFoundError) and exc.name and f"{module_name}.".startswith(f"{exc.name}."):
            return f"there is no module {exc.name}, beside the configuration file or installed"
        return f"can't import {module_name}: {_described(exc)}"
    lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(path)]
    where = f"{path.name} line {lines[-1]}" if lines else path.name
    return f"{where}: {_described(exc)}"


def _described(exc: Exception) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())
