"""What the settings of keys, users and teams may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from asgi_llm_gate.auth import hash_key
from asgi_llm_gate.values import Check, WrongValueError, at, fields, names, text, whole

_VISIBLE = re.compile(r"[!-~]+")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

# Under these names LiteLLM's keys keep limits by model, in their metadata.
_BY_MODEL = ("model_max_parallel_requests", "model_rpm_limit", "model_tpm_limit")


def api_key(value: Any) -> str:
    """Check a key in clear."""
    key = text(value)
    if not _VISIBLE.fullmatch(key):
        raise WrongValueError("holds a character that an API key can't have")
    return key


def keys(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Check a list of keys; each becomes one that is known by its SHA-256 alone."""
    if not isinstance(value, list | tuple):
        raise WrongValueError(f"expected a list of keys, got {type(value).__name__}")
    found = tuple(at(f"[{index}]", _key, entry) for index, entry in enumerate(value))
    known: dict[str, int] = {}
    for index, entry in enumerate(found):
        first = known.setdefault(entry["api_key_sha256"], index)
        if first != index:
            raise WrongValueError(f"has the same key as [{first}]", f"[{index}]")
    return found


def _key(value: Any) -> Mapping[str, Any]:
    key = fields(value, _KEY)
    if ("api_key" in key) == ("api_key_sha256" in key):
        raise WrongValueError("expected either api_key or api_key_sha256")
    in_clear = key.pop("api_key", None)
    return {"api_key_sha256": hash_key(in_clear), **key} if in_clear is not None else key


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise WrongValueError("expected 64 hex digits")
    return value.lower()


def _id(value: Any) -> str:
    """Check an id; the numbers of a database need no quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected values by name, got {type(value).__name__}")
    limits = {name: at(f".{name}", _limits, value[name]) for name in _BY_MODEL if name in value}
    return {**_plain(value), **limits}


def _limits(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected limits by model, got {type(value).__name__}")
    return {text(model): at(f".{model}", whole(0), limit) for model, limit in value.items()}


def _plain(value: Any) -> Any:
    """Return a copy in which the text of an environment variable is a text like any other."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def _by_id(value: Any, what: str) -> dict[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected {what} by id, got {type(value).__name__}")
    found: dict[str, Mapping[str, Any]] = {}
    for given, limits in value.items():
        name = at("", _id, given)
        if name in found:
            raise WrongValueError("stands here twice", f".{name}")
        found[name] = at(f".{name}", partial(fields, checks=_LIMITED), limits)
    return found


users: Check = partial(_by_id, what="users")
teams: Check = partial(_by_id, what="teams")

# What a key, a user and a team may have each.
_LIMITED: Mapping[str, Check] = {
    "max_parallel_requests": whole(0),
    "rpm_limit": whole(0),
    "tpm_limit": whole(0),
    "metadata": _metadata,
}

_KEY: Mapping[str, Check] = {
    "api_key": api_key,
    "api_key_sha256": _sha256,
    "key_alias": text,
    "user_id": _id,
    "team_id": _id,
    "models": names,
    **_LIMITED,
}
