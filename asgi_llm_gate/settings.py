"""The settings of a gate: one table of names, sections, defaults and what each may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.endpoints import ENDPOINTS, PASS, WEBSOCKETS, by_call_type

if TYPE_CHECKING:
    from asgi_llm_gate.auth import CustomAuth


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one gate, checked. Sizes are bytes, times are seconds.

    Attributes:
        callbacks: The callbacks, in order.
        enforce_user_param: Calls must say who their user is.
        enforced_params: Further fields that calls must carry, dotted for nested ones.
        user_params: The fields that say who the user is; one of them is enough.
        forward_user: ``documented`` drops an enforced `user` where OpenAI's endpoint has none, ``always`` keeps it.
        master_key: The key that callers must present.
        custom_auth: Is asked who is calling, ``(request, api_key)``, in place of the master key.
        model_list: The upstreams of the command line's own server, LiteLLM's entries.
        cache: What hooks are given as `cache`; one of the gate's own if None.
        call_type_names: Name call types as LiteLLM's documentation does, or as its code does now.
        hook_timeout: How long a hook may take.
        on_hook_error: What becomes of the call when a hook crashes or takes too long.
        moderation_mode: ``hold``: nothing goes out before the verdict.
        moderation_buffer: How much of a held response is kept before the app must wait.
        cancel_grace: What the app has between the disconnect it is told and its cancellation.
        max_body_bytes: The largest request body, decompressed.
        max_json_values: The most values in a request body.
        body_timeout: How long a request body may take to arrive.
        max_response_bytes: The largest response that success and failure hooks are shown.
        policies: What becomes of endpoint classes that the gate does not look into: ``pass`` or ``deny``, the default.
        paths: An app's own paths, by their end: a call type, or ``pass`` for what is no LLM call.
        shutdown_timeout: How long open streams may go on after the command line's server is told to stop.
    """

    callbacks: tuple[object, ...] = ()
    enforce_user_param: bool = False
    enforced_params: tuple[str, ...] = ()
    user_params: tuple[str, ...] = ("user",)
    forward_user: Literal["documented", "always"] = "documented"
    master_key: str | None = field(default=None, repr=False)
    custom_auth: CustomAuth | None = None
    model_list: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    cache: DualCache | None = None
    call_type_names: Literal["documented", "litellm"] = "documented"
    hook_timeout: float = 30.0
    on_hook_error: Literal["reject", "allow"] = "reject"
    moderation_mode: Literal["hold"] = "hold"
    moderation_buffer: int = 1_000_000
    cancel_grace: float = 0.1
    max_body_bytes: int = 10_000_000
    max_json_values: int = 500_000
    body_timeout: float = 60.0
    max_response_bytes: int = 64_000_000
    policies: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    shutdown_timeout: float = 10.0


class Keywords(TypedDict, total=False):
    """The settings as `LLMGate` takes them: those of `Settings`, in the forms that are easy to write."""

    callbacks: Any
    enforce_user_param: bool
    enforced_params: str | list[str] | tuple[str, ...]
    user_params: str | list[str] | tuple[str, ...]
    forward_user: Literal["documented", "always"]
    master_key: str | None
    custom_auth: CustomAuth | str | None
    model_list: list[Mapping[str, Any]] | tuple[Mapping[str, Any], ...]
    cache: DualCache | None
    call_type_names: Literal["documented", "litellm"]
    hook_timeout: float
    on_hook_error: Literal["reject", "allow"]
    moderation_mode: Literal["hold"]
    moderation_buffer: int
    cancel_grace: float
    max_body_bytes: int
    max_json_values: int
    body_timeout: float
    max_response_bytes: int
    policies: Mapping[str, str]
    paths: Mapping[str, str]
    shutdown_timeout: float


Check = Callable[[Any], Any]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {value!r}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TypeError(f"expected a whole number from 1, got {value!r}")
    return value


def _seconds(least: float) -> Check:
    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < math.inf:
            raise TypeError(f"expected seconds from {least:g}, got {value!r}")
        return float(value)

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str:
        if value not in words:
            raise TypeError(f"expected {' or '.join(words)}, got {value!r}")
        return str(value)

    return check


def _names(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"expected a name or a list of names, got {value!r}")
    return tuple(names)


def _some_names(value: Any) -> tuple[str, ...]:
    names = _names(value)
    if not names:
        raise TypeError("expected at least one name")
    return names


def _key(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise TypeError("expected a key that is not empty")
    return value


def _cache(value: Any) -> DualCache | None:
    if value is not None and not isinstance(value, DualCache):
        raise TypeError(f"expected a DualCache, got {type(value).__name__}")
    return value


def _words(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise TypeError(f"expected names and words, got {value!r}")
    return dict(value)


_CLASSES = sorted({row.call_type for row in (*ENDPOINTS, *WEBSOCKETS) if not row.inspected})


def _policies(value: Any) -> dict[str, str]:
    for name, policy in _words(value).items():
        if name not in _CLASSES:
            raise TypeError(f"{name} is no endpoint class with a policy; those are {', '.join(_CLASSES)}")
        if policy not in (PASS, "deny"):
            raise TypeError(f"{name}: expected pass or deny (this version can't inspect it), got {policy!r}")
    return dict(value)


def _paths(value: Any) -> dict[str, str]:
    for path, call_type in _words(value).items():
        if not path.startswith("/") or path.endswith("/"):
            raise TypeError(f"{path}: a path begins with a slash and ends with none")
        if call_type != PASS and by_call_type(call_type) is None:
            raise TypeError(f"{path}: expected a call type such as completion, or pass, got {call_type!r}")
    return dict(value)


# Every setting but the three that take loading (`callbacks`, `custom_auth`, `model_list`), and what it may be.
CHECKS: Mapping[str, Check] = {
    "enforce_user_param": _boolean,
    "enforced_params": _names,
    "user_params": _some_names,
    "forward_user": _one_of("documented", "always"),
    "master_key": _key,
    "cache": _cache,
    "call_type_names": _one_of("documented", "litellm"),
    "hook_timeout": _seconds(0.001),
    "on_hook_error": _one_of("reject", "allow"),
    "moderation_mode": _one_of("hold"),
    "moderation_buffer": _count,
    "cancel_grace": _seconds(0),
    "max_body_bytes": _count,
    "max_json_values": _count,
    "body_timeout": _seconds(0.001),
    "max_response_bytes": _count,
    "policies": _policies,
    "paths": _paths,
    "shutdown_timeout": _seconds(0),
}
