"""From a configuration file, a mapping or keywords to `Settings`: LiteLLM's YAML, every mistake named in one line."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from asgi_llm_gate.loading import LoadError, as_callback, load
from asgi_llm_gate.settings import CHECKS, Keywords, Settings

__all__ = ["ConfigError", "Keywords", "Settings", "load_settings"]

logger = logging.getLogger("asgi_llm_gate")

CONFIG_VARIABLE = "ASGI_LLM_GATE_CONFIG"

_ENVIRON = "os.environ/"

# Where LiteLLM's file has a setting; all others stand under `gate_settings`.
_LITELLM_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "litellm_settings": ("callbacks", "cache_params"),
    "general_settings": ("master_key", "enforce_user_param", "enforced_params", "custom_auth"),
}
_SETTINGS = ("callbacks", "custom_auth", "model_list", *CHECKS)
_ELSEWHERE = ("model_list", *(name for names in _LITELLM_SECTIONS.values() for name in names))
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    **_LITELLM_SECTIONS,
    "gate_settings": tuple(name for name in _SETTINGS if name not in _ELSEWHERE and name != "cache"),
}

# Settings of later versions that guard something: to pass them over would leave a hole.
_NOT_SERVED = ("inspector", "keys", "lease_seconds", "redis_url", "strict", "streaming_window", "teams", "users")


class ConfigError(ValueError):
    """A configuration that can't be used, in one line that says where and why."""


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake: the second would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # PyYAML's own complaint follows
            if key in seen:
                problem = f"{key} stands here twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


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
    if config is None or isinstance(config, Mapping):
        name, base, content = "config", None, dict(config or {})
    else:
        path = Path(config)
        name, base, content = str(path), path.parent, _read(path)
    try:
        found = dict(_settings(_resolved(content, environ, "")))
        from_file = _loaded(found, base)
        given = _loaded(_keywords(keywords), base)
    except _MistakeError as mistake:
        raise ConfigError(f"{name}: {mistake}") from mistake.__cause__
    callbacks = (*from_file.get("callbacks", ()), *given.get("callbacks", ()))
    return Settings(**{**from_file, **given, "callbacks": callbacks})


class _MistakeError(Exception):
    """What is wrong at one place of a configuration."""

    def __init__(self, where: str, what: object) -> None:
        super().__init__(f"{where}: {what}" if where else str(what))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{line} {getattr(exc, 'problem', None) or exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections at the top, got {type(content).__name__}")
    return content


def _resolved(value: Any, environ: Mapping[str, str], where: str) -> Any:
    """Replace ``os.environ/NAME`` by the variable, at any depth."""
    if isinstance(value, str) and value.startswith(_ENVIRON):
        name = value.removeprefix(_ENVIRON)
        if name not in environ:
            raise _MistakeError(where, f"the environment variable {name} is not set")
        return environ[name]
    if isinstance(value, Mapping):
        return {k: _resolved(v, environ, f"{where}.{k}" if where else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, environ, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _settings(content: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield each setting of a file: its name, where it stands, its value."""
    for section, values in content.items():
        if section == "model_list":
            yield section, (section, values)
        elif section not in _SECTIONS:
            _warn(section, section, ("model_list", *_SECTIONS))
        elif not isinstance(values, Mapping | None):
            raise _MistakeError(section, f"expected settings by name, got {type(values).__name__}")
        else:
            for name, value in (values or {}).items():
                yield from _setting(section, name, value)


def _setting(section: str, name: str, value: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    where = f"{section}.{name}"
    if name == "cache_params" and section == "litellm_settings":
        if not isinstance(value, Mapping) or value.get("type") != "local":
            raise _MistakeError(where, "only `type: local` is served by this version")
    elif name in _NOT_SERVED and section == "gate_settings":
        raise _MistakeError(where, "not served by this version")
    elif name in _SECTIONS[section]:
        yield name, (where, value)
    else:
        _warn(where, name, _SECTIONS[section])


def _warn(where: str, name: object, known: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(str(name), known, 1)
    logger.warning("%s is not a setting of the gate%s", where, f"; did you mean {near[0]}?" if near else "")


def _keywords(keywords: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    for name in keywords:
        if name not in _SETTINGS:
            near = difflib.get_close_matches(name, _SETTINGS, 1)
            raise _MistakeError(name, f"not a setting{f'; did you mean {near[0]}?' if near else ''}")
    return {name: (name, value) for name, value in keywords.items()}


def _loaded(found: Mapping[str, tuple[str, Any]], base: Path | None) -> dict[str, Any]:
    """Check the settings, and load what is given by name."""
    settings: dict[str, Any] = {}
    for name, (where, value) in found.items():
        try:
            if name == "callbacks":
                settings[name] = _callbacks(value, base)
            elif name == "custom_auth":
                settings[name] = _function(value, base)
            elif name == "model_list":
                settings[name] = _model_list(value, where)
            else:
                settings[name] = CHECKS[name](value)
        except (TypeError, LoadError) as exc:
            raise _MistakeError(where, exc) from exc
    return settings


def _callbacks(value: Any, base: Path | None) -> tuple[object, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(as_callback(load(item, base) if isinstance(item, str) else item) for item in items)


def _function(value: Any, base: Path | None) -> Any:
    found = load(value, base) if isinstance(value, str) else value
    if found is not None and not callable(found):
        raise TypeError(f"expected a function or its name, got {value!r}")
    return found


def _model_list(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    from asgi_llm_gate.forwarder.routes import check

    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of models, got {type(value).__name__}")
    problems = check(value)
    if problems:
        raise _MistakeError("", problems[0].replace("model_list", where, 1))
    return tuple(value)
