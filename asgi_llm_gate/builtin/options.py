"""What the options of hooks that ship may be; each mistake is a `ValueError` that begins with the option's name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

_KEY = re.compile(r"[!-~]+")


def text(option: str, value: Any) -> str:
    """Return a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{option}: expected text, got {_kind(value)}")
    return str(value)


def base_url(option: str, value: Any) -> str:
    """Return the base URL of a server with OpenAI's API, without a slash at its end."""
    url = text(option, value)
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        is_url = False
    if not is_url or not url.isprintable() or " " in url:
        raise ValueError(f"{option}: must be an absolute URL with http:// or https://")
    if parts.username is not None or "?" in url or "#" in url:
        raise ValueError(f"{option}: must have no user, no query and no fragment")
    return url.rstrip("/")


def key(option: str, value: Any) -> str | None:
    """Return an API key, which no message shows, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise ValueError(f"{option}: is no API key")
    return str(value)


def number(option: str, value: Any, *, least: float = 0, most: float = math.inf) -> float:
    """Return a number in a range, also one that is written as text, as environment variables are."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not least <= found <= most or math.isinf(found):
        span = f"from {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise ValueError(f"{option}: expected a number {span}, got {_kind(value)}")
    return found


def seconds(option: str, value: Any) -> float:
    """Return a time above 0."""
    found = number(option, value)
    if not found:
        raise ValueError(f"{option}: expected more than 0 seconds")
    return found


def whole(option: str, value: Any, *, least: int) -> int:
    """Return a whole number."""
    found = number(option, value, least=least)
    if found != int(found):
        raise ValueError(f"{option}: expected a whole number, got {_kind(value)}")
    return int(found)


def one_of(option: str, value: Any, words: Sequence[str]) -> str:
    """Return one of some words."""
    if value not in words:
        raise ValueError(f"{option}: expected {' or '.join(words)}, got {_kind(value)}")
    return str(value)


def policy(option: str, value: Any) -> str | None:
    """Return what becomes of a call when a hook fails; None for what the gate's setting says."""
    return None if value is None else one_of(option, value, ("reject", "allow"))


def names(option: str, value: Any) -> tuple[str, ...]:
    """Return the names of a list, or the one that stands in its place."""
    if isinstance(value, str):
        return (text(option, value),)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{option}: expected a name or a list of names, got {_kind(value)}")
    return tuple(text(f"{option}[{index}]", name) for index, name in enumerate(value))


def named(option: str, value: Any) -> dict[str, Any]:
    """Return a mapping whose names are texts; what is under them is not looked at."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{option}: expected values by name, got {_kind(value)}")
    return {text(option, name): item for name, item in value.items()}


def _kind(value: Any) -> str:
    """Return what a message shows of a value: a number, and of all else, which may be a secret, the type."""
    if isinstance(value, str):
        return "text" if value.strip() else "none"
    return repr(value) if isinstance(value, int | float) else type(value).__name__
