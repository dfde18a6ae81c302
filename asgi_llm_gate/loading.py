"""Callbacks by name: the modules of handler files, found beside the configuration and run once."""

from __future__ import annotations
import __future__

import importlib
import importlib.machinery
import importlib.util
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asgi_llm_gate import litellm_names
from asgi_llm_gate.hooks import STAGES, UNSERVED, check_signatures, overrides

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType

# LiteLLM's names of hooks that it ships.
_BUILT_IN = frozenset(
    {
        *("aporia_prompt_injection", "azure_content_safety", "banned_keywords", "batch_redis_requests"),
        *("blocked_user_check", "detect_prompt_injection", "google_text_moderation", "hide_secrets"),
        *(
            "lakera_prompt_injection",
            "llamaguard_moderations",
            "llmguard_moderations",
            "openai_moderations",
            "presidio",
        ),
    }
)

# `sys.path` and the names made importable belong to the process.
_loading = threading.RLock()


class LoadError(ValueError):
    """A callback can't be had, in one line that names it."""


class _HandlerFile(importlib.machinery.SourceFileLoader):
    """Compiles a file with its annotations left unread.

    Handlers are typed in from pages that use names in annotations without importing them, and that write
    ``Optional[dict, str, Exception]``, which Python refuses to evaluate.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source each time: Python's own cached code has its annotations read."""
        path = self.get_filename(fullname)
        flags = __future__.annotations.compiler_flag
        code: CodeType = compile(self.get_data(path), path, "exec", flags=flags, dont_inherit=True)
        return code


def load(name: str, base: Path | None) -> object:
    """Return the object of a dotted name, whose last part is an attribute of the module before it.

    Args:
        name: Such as ``custom_callbacks.proxy_handler_instance``.
        base: The folder whose files come before installed modules.

    Raises:
        LoadError: There is no such module or attribute, or the module fails.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        built_in = name in _BUILT_IN
        raise LoadError(f"{name}: {'not served by this version' if built_in else 'expected module.attribute'}")
    with _loading, litellm_names.importable(), _searching(base):
        try:
            module = _module(module_name, base)
        except Exception as exc:
            raise LoadError(f"{name}: can't import {module_name}: {type(exc).__name__}: {exc}") from exc
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise LoadError(f"{name}: {module_name} has no {attribute}") from None


def as_callback(value: object) -> object:
    """Return a callback: the object itself, or an instance of a class.

    Raises:
        LoadError: It can't be made, or has no hook, or a hook takes arguments that there are not.
    """
    if isinstance(value, type):
        try:
            value = value()
        except Exception as exc:
            raise LoadError(f"{value} can't be made: {type(exc).__name__}: {exc}") from exc
    names = (*STAGES, *UNSERVED)
    if not any(overrides(value, name) for name in names):
        shown = value if isinstance(value, str) else type(value).__name__
        raise LoadError(f"{shown} has no hook; a callback has some of {', '.join(names)}")
    try:
        check_signatures(value)
    except TypeError as exc:
        raise LoadError(str(exc)) from exc
    return value


@contextmanager
def _searching(base: Path | None) -> Iterator[None]:
    """Let a handler file import its neighbours while it is loaded."""
    if base is None:
        yield
        return
    entry = str(base.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _module(name: str, base: Path | None) -> ModuleType:
    path = _file(name, base)
    if path is None:
        return importlib.import_module(name)
    known = sys.modules.get(name)
    if known is not None and _is_from(known, path):
        return known
    # Another configuration's file of the same name keeps its place.
    unique = name if known is None else f"{name}@{path}"
    return sys.modules[unique] if unique in sys.modules else _executed(unique, path)


def _file(name: str, base: Path | None) -> Path | None:
    if base is None:
        return None
    stem = base.resolve().joinpath(*name.split("."))
    return next((path for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if path.is_file()), None)


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=_HandlerFile(name, str(path)))
    if spec is None or spec.loader is None:  # pragma: no cover  # a loader was given
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
