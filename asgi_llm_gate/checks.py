"""What each setting may be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from asgi_llm_gate.builtin import BUILT_IN
from asgi_llm_gate.cache import DualCache, RedisCache
from asgi_llm_gate.cache.address import Address, from_params, from_url
from asgi_llm_gate.cache.redis import NAMESPACE
from asgi_llm_gate.endpoints import DENY, ENDPOINTS, INSPECT, PASS, WEBSOCKETS, by_call_type

Check = Callable[[Any], Any]

_ENVIRON = "os.environ/"

# Characters of a value that a message shows; what is longer may be a secret in the wrong place.
_MOST_SHOWN = 60

_VISIBLE = re.compile(r"[!-~]+")

# An own path: no dotted segment, nothing of an escape or of a URL's other parts, and no name in the braces.
_SEGMENT = r"/(?!\.\.?(?:/|$))[^/\\;%#?{}\x00- \x7f-\U0010ffff]+"
_PATH = re.compile(rf"(?:{_SEGMENT}|/\{{\}}(?=/))+")


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
    return text if 0 < len(text) <= _MOST_SHOWN else type(value).__name__


def decoded(given: Any) -> Any:
    """Return a value, an environment variable's text read as JSON where it is any."""
    if isinstance(given, FromEnviron):
        try:
            return orjson.loads(given.strip().lower())
        except orjson.JSONDecodeError:
            return given
    return given


def _boolean(given: Any) -> bool:
    value = decoded(given)
    if not isinstance(value, bool):
        raise WrongValueError(f"expected true or false, got {shown(given)}")
    return value


def _whole(least: int) -> Check:
    def check(given: Any) -> int:
        value = decoded(given)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WrongValueError(f"expected a whole number from {least}, got {shown(given)}")
        return value

    return check


def _seconds(given: Any) -> float:
    value = decoded(given)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        raise WrongValueError(f"expected a number of seconds, got {shown(given)}")
    return float(value)


def _some_seconds(given: Any) -> float:
    seconds = _seconds(given)
    if not seconds:
        raise WrongValueError("expected more than 0 seconds")
    return seconds


def _one_of(*words: str, later: tuple[str, ...] = ()) -> Check:
    def check(value: Any) -> str:
        if value in later:
            raise WrongValueError(f"{value} is not served by this version, only {' or '.join(words)}")
        if value not in words:
            raise WrongValueError(f"expected {' or '.join(words)}, got {shown(value)}")
        return str(value)

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError(f"expected text, got {'none' if isinstance(value, str) else type(value).__name__}")
    return str(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list | tuple):
        raise WrongValueError(f"expected a name or a list of names, got {type(value).__name__}")
    return tuple(_at(f"[{index}]", _text, name) for index, name in enumerate(value))


def _some_names(value: Any) -> tuple[str, ...]:
    names = _names(value)
    if not names:
        raise WrongValueError("expected at least one name")
    return names


def _key(value: Any) -> str | None:
    key = None if value is None else _text(value)
    if key is not None and not _VISIBLE.fullmatch(key):
        raise WrongValueError("holds a character that an API key can't have")
    return key


def _cache(value: Any) -> DualCache | None:
    if value is not None and not isinstance(value, DualCache):
        raise WrongValueError(f"expected a DualCache, got {type(value).__name__}")
    return value


def _redis_url(value: Any) -> str | None:
    url = None if value is None else _text(value)
    if url is not None:
        _address(lambda: from_url(url))
    return url


def redis_cache(value: Any, environ: Mapping[str, str]) -> RedisCache | None:
    """Make the tier that LiteLLM's `cache_params` describe, those it leaves out as in LiteLLM's environment variables.

    Raises:
        WrongValueError: They are wrong, or describe something that is not served.
    """
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected settings by name, got {type(value).__name__}")
    kind = value.get("type", "redis")
    if kind not in ("local", "redis"):
        raise WrongValueError(f"only local and redis are served by this version, got {shown(kind)}", ".type")
    if kind == "local":
        return None
    namespace = _at(".namespace", _text, value.get("namespace", NAMESPACE))
    address = _address(lambda: from_params(value, environ))
    return RedisCache(address, namespace=namespace)


def _address(read: Callable[[], Address]) -> Address:
    try:
        return read()
    except (ImportError, ValueError) as exc:
        raise WrongValueError(exc) from None


def _words(value: Any, name: Check, word: Check) -> dict[str, str]:
    """Check a mapping, each name and each word."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected names and words, got {type(value).__name__}")
    return {_at(f".{key}", name, key): _at(f".{key}", word, item) for key, item in value.items()}


def _callback_settings(value: Any) -> dict[str, dict[str, Any]]:
    """Check that options are those of hooks that ship; what each may be, the hook knows itself."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected options by the names of hooks, got {type(value).__name__}")
    for name in value:
        if name not in BUILT_IN:
            raise WrongValueError(f"no hook that ships; those are {', '.join(BUILT_IN)}", f".{name}")
    return {name: _at(f".{name}", hook_options, options) for name, options in value.items()}


def hook_options(value: Any) -> dict[str, Any]:
    """Check the options of one hook: that they have names.

    Raises:
        WrongValueError: They have none.
    """
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected options by name, got {type(value).__name__}")
    return {str(name): option for name, option in value.items()}


def _at(place: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except WrongValueError as exc:
        raise WrongValueError(exc, place + exc.at) from None


_CLASSES = {row.call_type: row.inspected for row in (*ENDPOINTS, *WEBSOCKETS) if row.has_policy}
_policy = _one_of(PASS, DENY, later=(INSPECT,))
_policy_of_inspected = _one_of(INSPECT, PASS, DENY)


def _policies(value: Any) -> dict[str, str]:
    policies = _words(value, _endpoint_class, str)
    return {
        name: _at(f".{name}", _policy_of_inspected if _CLASSES[name] else _policy, value[name]) for name in policies
    }


def _endpoint_class(name: Any) -> str:
    if name not in _CLASSES:
        raise WrongValueError(f"no endpoint class with a policy; those are {', '.join(sorted(_CLASSES))}")
    return str(name)


def _paths(value: Any) -> dict[str, str]:
    return _words(value, _path, _call_type)


def _path(path: Any) -> str:
    """Refuse a path that no request has in its plain form: its calls would pass unseen."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise WrongValueError("expected a path such as /v2/ask, where a segment but the last may be {}")
    return path


def _call_type(word: Any) -> str:
    if not isinstance(word, str) or (word != PASS and by_call_type(word) is None):
        raise WrongValueError(f"expected a call type such as completion, or pass, got {shown(word)}")
    return str(word)


# Every setting but the three that take loading (`callbacks`, `custom_auth`, `model_list`), and what it may be.
CHECKS: Mapping[str, Check] = {
    "callback_settings": _callback_settings,
    "enforce_user_param": _boolean,
    "enforced_params": _names,
    "user_params": _some_names,
    "forward_user": _one_of("documented", "always"),
    "master_key": _key,
    "cache": _cache,
    "redis_url": _redis_url,
    "on_store_error": _one_of("allow", "reject"),
    "call_type_names": _one_of("documented", "litellm"),
    "hook_timeout": _some_seconds,
    "on_hook_error": _one_of("reject", "allow"),
    "moderation_mode": _one_of("hold", "cut"),
    "moderation_buffer": _whole(1),
    "keep_alive": _seconds,
    "cancel_grace": _seconds,
    "max_body_bytes": _whole(1),
    "max_upload_bytes": _whole(1),
    "max_json_values": _whole(1),
    "body_timeout": _some_seconds,
    "max_response_bytes": _whole(1),
    "max_event_bytes": _whole(1),
    "streaming_window": _whole(0),
    "log_response_bytes": _whole(1),
    "strict": _boolean,
    "policies": _policies,
    "paths": _paths,
    "lease_seconds": _some_seconds,
    "shutdown_timeout": _seconds,
}
