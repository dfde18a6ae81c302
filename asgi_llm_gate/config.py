"""From a configuration file, a mapping or keywords to `Settings`: LiteLLM's YAML, every mistake named in one line."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_llm_gate.builtin import BUILT_IN
from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.cache_checks import redis_cache
from asgi_llm_gate.checks import CHECKS, hook_options
from asgi_llm_gate.config_file import ConfigError, one_line
from asgi_llm_gate.coverage import gaps, uncounted
from asgi_llm_gate.litellm_keys import CACHE_PARAMS, ENTRY, ENTRY_PARAMS, SECTIONS, guarded_by, instead_of
from asgi_llm_gate.loading import LoadError, as_callback, load, load_callback
from asgi_llm_gate.settings import Keywords, Settings
from asgi_llm_gate.shipped import with_built_in
from asgi_llm_gate.source import VARIABLES, Source
from asgi_llm_gate.values import FromEnviron, WrongValueError, decoded, resolved, shown

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_llm_gate.cache import RedisCache

__all__ = ["ConfigError", "Keywords", "Settings", "load_settings"]

logger = logging.getLogger("asgi_llm_gate")

CONFIG_VARIABLE = "ASGI_LLM_GATE_CONFIG"

# What LiteLLM's file has no place for stands under `gate_settings`.
_SETTINGS = ("callbacks", "custom_auth", "model_list", *CHECKS)
_ELSEWHERE = ("model_list", *(name for names in SECTIONS.values() for name in names))
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    **SECTIONS,
    "gate_settings": tuple(name for name in _SETTINGS if name not in _ELSEWHERE and name != "cache"),
}

# Each setting's name and its full place.
_PLACES: Mapping[str, str] = {
    "model_list": "model_list",
    **{name: f"{section}.{name}" for section, names in _SECTIONS.items() for name in names},
}

# What guards something in a later version: to pass it over would leave a hole.
_LATER = frozenset({"gate_settings.inspector"})


def load_settings(
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of a file or mapping and of keywords.

    Args:
        config: The path of a YAML file, or its content. With neither this nor keywords, the file that the environment
            variable ``ASGI_LLM_GATE_CONFIG`` names is used if it is set.
        keywords: Settings by name. They win over the file, but `callbacks` add up, the file's first.
        environ: The environment, for this and for ``os.environ/NAME`` in the file.

    Raises:
        ConfigError: Something is wrong.
    """
    environ = os.environ if environ is None else environ
    if config is None and not keywords:
        config = environ.get(CONFIG_VARIABLE) or None
    source = Source.of(config, environ)
    base, content, prefix = source
    from_file = _checked(_file_settings, content, {**environ, **source.variables(environ)}, base, prefix)
    given = _checked(_keywords, keywords, environ, base, "")
    tier = from_file.pop("cache_params", None)
    callbacks = (*from_file.get("callbacks", ()), *given.get("callbacks", ()))
    options = {**from_file.get("callback_settings", {}), **given.get("callback_settings", {})}
    settings = Settings(**{**from_file, **given, "callbacks": callbacks, "callback_settings": options})
    settings = with_built_in(
        _with_cache(settings, tier), lambda name: "" if name in given.get("callback_settings", {}) else prefix
    )
    if settings.strict and (unseen := gaps(settings)):
        raise ConfigError(f"{prefix}strict: {unseen[0]}")
    for sentence in uncounted(settings):
        logger.warning("%s%s", prefix, sentence)
    return settings


class _MistakeError(Exception):
    """What is wrong at one place of a configuration."""

    def __init__(self, where: str, what: object) -> None:
        super().__init__(f"{where}: {what}")


class _Found(NamedTuple):
    """A setting as it was given."""

    name: str
    where: str
    value: Any


def _checked(
    find: Callable[[Mapping[Any, Any]], Iterator[_Found]],
    content: Mapping[Any, Any],
    environ: Mapping[str, str],
    base: Path | None,
    prefix: str,
) -> dict[str, Any]:
    """Return the settings that are found in some content, checked, with what is given by name loaded."""
    try:
        found = list(find(content))
        _refuse_twice(found)
        settings = {setting.name: _check(setting, environ, base) for setting in found}
    except _MistakeError as mistake:
        raise ConfigError(f"{prefix}{mistake}") from mistake.__cause__
    except RecursionError as exc:
        raise ConfigError(f"{prefix}nested too deep") from exc
    if options := {name: settings.pop(name) for name in BUILT_IN if name in settings}:
        settings["callback_settings"] = {**settings.get("callback_settings", {}), **options}
    return settings


def _refuse_twice(found: list[_Found]) -> None:
    """Refuse options of a hook that stand both in LiteLLM's section and in the gate's."""
    elsewhere = {setting.name: setting.where for setting in found if setting.name in BUILT_IN}
    for name, where, value in found:
        for twice in elsewhere if name == "callback_settings" and isinstance(value, Mapping) else ():
            if twice in value:
                raise _MistakeError(f"{where}.{twice}", f"stands under {elsewhere[twice]} too")


def _file_settings(content: Mapping[Any, Any]) -> Iterator[_Found]:
    """Yield each setting of a file."""
    for section, values in content.items():
        _refuse(section, values)
        if section == "include":
            raise _MistakeError(section, "only a file can include others")
        if section == "model_list":
            yield _Found(section, section, values)
        elif section == VARIABLES:
            continue
        elif section not in _SECTIONS:
            _warn(section, section, ("model_list", *_SECTIONS))
        elif not isinstance(values, Mapping | None):
            raise _MistakeError(section, f"expected settings by name, got {type(values).__name__}")
        else:
            for name, value in (values or {}).items():
                yield from _setting(section, name, value)


def _setting(section: str, name: Any, value: Any) -> Iterator[_Found]:
    where = f"{section}.{name}"
    _refuse(where, value)
    if name not in _SECTIONS[section]:
        _warn(where, name, _SECTIONS[section])
    elif value is None:
        raise _MistakeError(where, "expected a value, got nothing")
    else:
        yield _Found(name, where, value)


def _refuse(where: str, value: Any) -> None:
    """Refuse what would guard something, and does not here."""
    if where in _LATER:
        raise _MistakeError(where, "not served by this version")
    if instead := guarded_by(str(where), value):
        raise _MistakeError(where, f"not served by this version; {instead}")


def _keywords(keywords: Mapping[str, Any]) -> Iterator[_Found]:
    for name, value in keywords.items():
        if name not in _SETTINGS:
            raise _MistakeError(name, f"not a setting{_hint(name, _SETTINGS)}")
        yield _Found(name, name, value)


def _warn_of_others(where: str, values: Any, known: tuple[str, ...]) -> None:
    for name, value in values.items() if isinstance(values, Mapping) else ():
        _refuse(f"{where}.{name}", value)
        if name not in known:
            _warn(f"{where}.{name}", name, known, places={})


def _warn(where: object, name: object, known: tuple[str, ...], places: Mapping[str, str] = _PLACES) -> None:
    instead = instead_of(str(where))
    hint = f"; {instead}" if instead else _hint(name, known, places)
    logger.warning("%s is not a setting of the gate%s", one_line(str(where)), hint)


def _hint(name: object, known: tuple[str, ...], places: Mapping[str, str] | None = None) -> str:
    """Return what may have been meant: of the names that stand in the same place, else of all."""
    near = difflib.get_close_matches(str(name), known, 1, cutoff=0.8)
    far = difflib.get_close_matches(str(name), places or (), 1, cutoff=0.8)
    meant = near[0] if near else (places or {})[far[0]] if far else None
    return f"; did you mean {meant}?" if meant else ""


def _check(setting: _Found, environ: Mapping[str, str], base: Path | None) -> Any:
    name, where, value = setting
    try:
        if name == "callbacks":
            return _callbacks(value, environ, base)
        value = resolved(value, environ)
        if name == "custom_auth":
            return _function(value, base)
        if name == "model_list":
            return _model_list(value, environ)
        if name == "cache_params":
            return _cache_params(value, environ)
        return hook_options(value) if name in BUILT_IN else CHECKS[name](value)
    except WrongValueError as exc:
        raise _MistakeError(where + exc.at, exc) from exc.__cause__


def _callbacks(value: Any, environ: Mapping[str, str], base: Path | None) -> tuple[object, ...]:
    if type(value) in (list, tuple):
        return tuple(_callback(item, environ, base, f"[{index}]") for index, item in enumerate(value))
    return (_callback(value, environ, base, ""),)


def _callback(item: Any, environ: Mapping[str, str], base: Path | None, at: str) -> object:
    if isinstance(item, str):
        name = resolved(item, environ, at)
        return str(name) if name in BUILT_IN else _loaded(load_callback, name, base, at)
    try:
        return as_callback(item)
    except LoadError as exc:
        raise WrongValueError(exc, at) from (exc.__cause__ or exc)


def _function(value: Any, base: Path | None) -> Any:
    found = _loaded(load, value, base) if isinstance(value, str) else value
    if found is not None and not callable(found):
        raise WrongValueError(f"expected a function or its name, got {shown(value)}")
    return found


def _loaded(how: Callable[[str, Path | None], object], name: str, base: Path | None, at: str = "") -> object:
    try:
        return how(name, base)
    except LoadError as exc:
        what = f"{name!r} can't be loaded" if isinstance(name, FromEnviron) else exc
        raise WrongValueError(what, at) from (exc.__cause__ or exc)


def _cache_params(value: Any, environ: Mapping[str, str]) -> RedisCache | None:
    tier = redis_cache(value, environ)
    _warn_of_others(_PLACES["cache_params"], value, CACHE_PARAMS)
    return tier


def _with_cache(settings: Settings, tier: RedisCache | None) -> Settings:
    """Return settings with a cache on Redis, if that is configured and no cache was given."""
    if settings.redis_url is not None:
        from asgi_llm_gate.cache import RedisCache

        tier = RedisCache(settings.redis_url)
    if settings.cache is not None or tier is None:
        return settings
    return replace(settings, cache=DualCache(redis_cache=tier, on_store_error=settings.on_store_error))


def _model_list(value: Any, environ: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    from asgi_llm_gate.forwarder.routes import check

    value = _with_numbers(value)
    for problem in check(value, environ):
        place, _, what = problem.removeprefix("model_list").partition(": ")
        raise WrongValueError(what, place)
    for index, entry in enumerate(value):
        _warn_of_others(f"model_list[{index}]", entry, ENTRY)
        _warn_of_others(f"model_list[{index}].litellm_params", entry["litellm_params"], ENTRY_PARAMS)
    return tuple(value)


def _with_numbers(entries: Any) -> Any:
    """Return the entries of a model list with what the environment holds of their timeouts read as numbers."""
    for entry in entries if isinstance(entries, list) else ():
        params = entry.get("litellm_params") if isinstance(entry, dict) else None
        if isinstance(params, dict) and isinstance(params.get("timeout"), FromEnviron):
            params["timeout"] = decoded(params["timeout"])
    return entries
