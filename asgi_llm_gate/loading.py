"""Callbacks by name: in handler files beside the configuration, or in installed modules."""

from __future__ import annotations

import importlib
import os
import re
import threading
import traceback
from typing import TYPE_CHECKING

from asgi_llm_gate import handler_file, litellm_names
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.guardrails import as_guard
from asgi_llm_gate.hooks import check, overrides

if TYPE_CHECKING:
    from pathlib import Path

# LiteLLM's names of hooks that it ships, and that do not ship here.
_NOT_SERVED = frozenset(
    {
        *("aporia_prompt_injection", "azure_content_safety", "batch_redis_requests"),
        *("detect_prompt_injection", "google_text_moderation", "hide_secrets"),
        *("lakera_prompt_injection", "langfuse", "llmguard_moderations", "otel"),
        *("presidio", "prometheus", "webhook"),
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
        known = name in _NOT_SERVED
        raise LoadError(f"{name}: {'not served by this version' if known else 'expected module.attribute'}")
    module_name, _, attribute = name.rpartition(".")
    path = _file(module_name, base)
    with _loading, litellm_names.importable():
        try:
            module = importlib.import_module(module_name) if path is None else handler_file.run(module_name, path)
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
    kind = type(value).__name__
    try:
        value = as_guard(value)
        if not any(overrides(value, name) for name in STAGES):
            raise LoadError(f"{kind} has no hook; a callback has some of {', '.join(STAGES)}")
        check(value)
    except LoadError:
        raise
    except TypeError as exc:
        raise LoadError(str(exc)) from exc
    except Exception as exc:
        raise LoadError(f"{kind} can't be read: {_described(exc)}") from exc
    return value


def _instance(kind: type) -> object:
    try:
        with _loading, litellm_names.importable():
            return kind()
    except Exception as exc:
        raise LoadError(f"{kind.__name__} can't be made: {_described(exc)}") from exc


def _file(name: str, base: Path | None) -> Path | None:
    """Return the file of a module beside the configuration, or None where there is none."""
    if base is None:
        return None
    stem = base.resolve().joinpath(*name.split("."))
    paths = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113  # a name may be too long


def _reason(exc: Exception, module_name: str, path: Path | None) -> str:
    if path is None:
        if isinstance(exc, ModuleNotFoundError) and exc.name and f"{module_name}.".startswith(f"{exc.name}."):
            return f"there is no module {exc.name}, beside the configuration file or installed"
        return f"can't import {module_name}: {_described(exc)}"
    lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(path)]
    where = f"{path.name} line {lines[-1]}" if lines else path.name
    return f"{where}: {_described(exc)}"


def _described(exc: Exception) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(it can't say what)"
    return " ".join(f"{type(exc).__name__}: {text}".split())
