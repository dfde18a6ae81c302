"""Values as settings give them: what an environment variable stands for, and what each kind of setting may be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from asgi_llm_gate.masking import mask

Check = Callable[[Any], Any]

_ENVIRON = "os.environ/"

# Characters of a value that a message shows; what is longer may be a secret in the wrong place.
_MOST_SHOWN = 60

_NAME = re.compile(r"[A-Za-z_]{1,40}")


class WrongValueError(Exception):
    """What is wrong with a setting.

    Args:
        what: In a few words.
        at: Where within the setting, such as ``[0]`` or ``.name``.
    """

    def __init__(self, what: object, at: str = "") -> None:
        super().__init__(str(what))
        self.at = at


class FromEnviron(str):
    """The text of an environment variable, which a setting that is no text reads as JSON. No message shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "what the environment variable holds"


def resolved(value: Any, environ: Mapping[str, str], at: str = "") -> Any:
    """Replace ``os.environ/NAME`` by the variable, at any depth.

    Raises:
        WrongValueError: There is no such variable.
    """
    if isinstance(value, str) and value.startswith(_ENVIRON):
        name = value.removeprefix(_ENVIRON)
        if name not in environ:
            raise WrongValueError(f"the environment variable {name} is not set", at)
        return FromEnviron(environ[name])
    if isinstance(value, Mapping):
        return {key: resolved(item, environ, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item, environ, f"{at}[{index}]") for index, item in enumerate(value)]
    return value


def shown(value: Any) -> str:
    """Return what a message shows of a value: a word or a number itself, of all else the type."""
    text = repr(value) if isinstance(value, str | float | int | None) else ""
    return mask(text) if 0 < len(text) <= _MOST_SHOWN else type(value).__name__


def decoded(given: Any) -> Any:
    """Return a value, an environment variable's text read as JSON where it is any."""
    if isinstance(given, FromEnviron):
        try:
            return orjson.loads(given.strip().lower())
        except orjson.JSONDecodeError:
            return given
    return given


def boolean(given: Any) -> bool:
    """Check a truth."""
    value = decoded(given)
    if not isinstance(value, bool):
        raise WrongValueError(f"expected true or false, got {shown(given)}")
    return value


def whole(least: int) -> Check:
    """Make the check of a whole number that is no smaller."""

    def check(given: Any) -> int:
        value = decoded(given)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WrongValueError(f"expected a whole number from {least}, got {shown(given)}")
        return value

    return check


def seconds(given: Any) -> float:
    """Check a time, which may be 0."""
    value = decoded(given)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        raise WrongValueError(f"expected a number of seconds, got {shown(given)}")
    return float(value)


def some_seconds(given: Any) -> float:
    """Check a time above 0."""
    found = seconds(given)
    if not found:
        raise WrongValueError("expected more than 0 seconds")
    return found


def one_of(*words: str, later: tuple[str, ...] = ()) -> Check:
    """Make the check of one of some words, of which a later version may serve more."""

    def check(value: Any) -> str:
        if value in later:
            raise WrongValueError(f"{value} is not served by this version, only {' or '.join(words)}")
        if value not in words:
            raise WrongValueError(f"expected {' or '.join(words)}, got {shown(value)}")
        return str(value)

    return check


def text(value: Any) -> str:
    """Check a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError(f"expected text, got {'none' if isinstance(value, str) else type(value).__name__}")
    return str(value)


def names(value: Any) -> tuple[str, ...]:
    """Check a name, or a list of them."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, list | tuple):
        raise WrongValueError(f"expected a name or a list of names, got {type(value).__name__}")
    return tuple(at(f"[{index}]", text, name) for index, name in enumerate(value))


def some_names(value: Any) -> tuple[str, ...]:
    """Check the same, of which there must be one."""
    found = names(value)
    if not found:
        raise WrongValueError("expected at least one name")
    return found


def words(value: Any, name: Check, word: Check) -> dict[str, str]:
    """Check a mapping, each name and each word."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected names and words, got {type(value).__name__}")
    return {at(f".{key}", name, key): at(f".{key}", word, item) for key, item in value.items()}


def fields(value: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    """Check a mapping in which each name has a check of its own."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected settings by name, got {type(value).__name__}")
    for name in value:
        if name not in checks:
            # What does not read like a name may be a secret in the wrong place.
            place = f".{name}" if isinstance(name, str) and _NAME.fullmatch(name) else ""
            raise WrongValueError(f"no setting{' there' if place else ''}; those are {', '.join(checks)}", place)
    return {name: at(f".{name}", checks[name], item) for name, item in value.items()}


def at(place: str, check: Check, value: Any) -> Any:
    """Check what stands at some place."""
    try:
        return check(value)
    except WrongValueError as exc:
        raise WrongValueError(exc, place + exc.at) from None
