"""Hooks that ship, made with their options once all settings are known."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.builtin import BUILT_IN
from asgi_llm_gate.config_file import ConfigError
from asgi_llm_gate.loading import LoadError, as_callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asgi_llm_gate.settings import Settings

logger = logging.getLogger("asgi_llm_gate")


def with_built_in(settings: Settings, prefix: Callable[[str], str]) -> Settings:
    """Return settings with hooks in the place of those callbacks that are names of hooks that ship.

    Args:
        settings: All of them, checked.
        prefix: Says how a message about the options of a name begins.

    Raises:
        ConfigError: An option is wrong or missing, or a hook needs a library that is not installed.
    """
    callbacks = list(settings.callbacks)
    names = {index: callback for index, callback in enumerate(callbacks) if isinstance(callback, str)}
    for name in settings.callback_settings:
        if name not in names.values():
            logger.warning("callback_settings.%s: there is no callback of this name", name)
    for index, name in names.items():
        try:
            callbacks[index] = _made(name, settings)
        except LoadError as exc:
            raise ConfigError(f"{prefix(name)}{exc}") from exc.__cause__
    return replace(settings, callbacks=tuple(callbacks))


def _made(name: str, settings: Settings) -> object:
    built_in, place = BUILT_IN[name], f"callback_settings.{name}"
    given = {setting: getattr(settings, setting) for setting in built_in.settings}
    given |= settings.callback_settings.get(name, {})
    try:
        kind = built_in.load()
    except ImportError as exc:
        raise LoadError(f"{name}: {exc}") from exc
    options = inspect.signature(kind).parameters
    _check_names(given, options.values(), place)
    try:
        return as_callback(kind(**given))
    except ImportError as exc:
        raise LoadError(f"{name}: {exc}") from exc
    except LoadError as exc:
        raise LoadError(f"{place}: {exc}") from exc
    except ValueError as exc:
        is_named = re.split(r"\W", str(exc), maxsplit=1)[0] in options
        raise LoadError(f"{place}{'.' if is_named else ': '}{exc}") from exc


def _check_names(given: Iterable[str], options: Iterable[inspect.Parameter], place: str) -> None:
    known = [option.name for option in options]
    for name in given:
        if name not in known:
            near: list[Any] = difflib.get_close_matches(name, known, 1)
            raise LoadError(f"{place}.{name}: not an option{f'; did you mean {near[0]}?' if near else ''}")
    for option in options:
        if option.default is option.empty and option.name not in given:
            raise LoadError(f"{place}.{option.name}: expected a value, got nothing")
