"""What each setting may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from asgi_llm_gate.builtin import BUILT_IN
from asgi_llm_gate.cache_checks import cache, redis_url
from asgi_llm_gate.endpoints import DENY, ENDPOINTS, INSPECT, PASS, WEBSOCKETS, by_call_type
from asgi_llm_gate.key_checks import api_key, keys, teams, users
from asgi_llm_gate.values import (
    Check,
    WrongValueError,
    at,
    boolean,
    names,
    one_of,
    seconds,
    shown,
    some_names,
    some_seconds,
    whole,
    words,
)

# An own path: no dotted segment, nothing of an escape or of a URL's other parts, and no name in the braces.
_SEGMENT = r"/(?!\.\.?(?:/|$))(?:(?![/\\;%#?{}])[!-~])+"
_PATH = re.compile(rf"(?:{_SEGMENT}|/\{{\}}(?=/))+")


def _key(value: Any) -> str | None:
    return None if value is None else api_key(value)


def _callback_settings(value: Any) -> dict[str, dict[str, Any]]:
    """Check that options are those of hooks that ship; what each may be, the hook knows itself."""
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected options by the names of hooks, got {type(value).__name__}")
    for name in value:
        if name not in BUILT_IN:
            raise WrongValueError(f"no hook that ships; those are {', '.join(BUILT_IN)}", f".{name}")
    return {name: at(f".{name}", hook_options, options) for name, options in value.items()}


def hook_options(value: Any) -> dict[str, Any]:
    """Check the options of one hook: that they have names.

    Raises:
        WrongValueError: They have none.
    """
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected options by name, got {type(value).__name__}")
    return {str(name): option for name, option in value.items()}


_CLASSES = {row.call_type: row.inspected for row in (*ENDPOINTS, *WEBSOCKETS) if row.has_policy}
_policy = one_of(PASS, DENY, later=(INSPECT,))
_policy_of_inspected = one_of(INSPECT, PASS, DENY)


def _policies(value: Any) -> dict[str, str]:
    policies = words(value, _endpoint_class, str)
    return {name: at(f".{name}", _policy_of_inspected if _CLASSES[name] else _policy, value[name]) for name in policies}


def _endpoint_class(name: Any) -> str:
    if name not in _CLASSES:
        raise WrongValueError(f"no endpoint class with a policy; those are {', '.join(sorted(_CLASSES))}")
    return str(name)


def _paths(value: Any) -> dict[str, str]:
    return words(value, _path, _call_type)


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
    "enforce_user_param": boolean,
    "enforced_params": names,
    "user_params": some_names,
    "forward_user": one_of("documented", "always"),
    "master_key": _key,
    "cache": cache,
    "redis_url": redis_url,
    "on_store_error": one_of("allow", "reject"),
    "call_type_names": one_of("documented", "litellm"),
    "hook_timeout": some_seconds,
    "on_hook_error": one_of("reject", "allow"),
    "moderation_mode": one_of("hold", "cut"),
    "moderation_buffer": whole(1),
    "keep_alive": seconds,
    "cancel_grace": seconds,
    "max_body_bytes": whole(1),
    "max_upload_bytes": whole(1),
    "max_json_values": whole(1),
    "body_timeout": some_seconds,
    "max_response_bytes": whole(1),
    "max_event_bytes": whole(1),
    "streaming_window": whole(0),
    "log_response_bytes": whole(1),
    "strict": boolean,
    "policies": _policies,
    "paths": _paths,
    "keys": keys,
    "users": users,
    "teams": teams,
    "lease_seconds": some_seconds,
    "shutdown_timeout": seconds,
}
