"""The hooks of a gate's callbacks: found once, called by what their signatures accept, judged when they fail."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from asgi_llm_gate.callhooks import STAGES, CallHooks
from asgi_llm_gate.deadline import within
from asgi_llm_gate.errors import GateError, Rejection, intended, internal_error, rejection
from asgi_llm_gate.litellm_objects import Objects, record_of
from asgi_llm_gate.masking import log_crash, mask
from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes import CHANNELS

if TYPE_CHECKING:
    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.deadline import Limiter

_BASES = frozenset({"litellm.integrations.custom_logger", "litellm.integrations.custom_guardrail"})

OnError = Literal["reject", "allow"]


class HookFailedError(GateError):
    """A hook crashed, took too long, or returned what no hook may return; the client learns none of it."""

    def __init__(self, hook: str) -> None:
        error = internal_error()
        super().__init__(error.status_code, error.message, type=error.type, code=error.code)
        self.hook = hook


class Hook:
    """One method of one callback, with what is known of it before the first call."""

    __slots__ = ("_method", "_objects", "_unwanted", "callback", "name", "on_error", "timeout")

    def __init__(self, callback: object, method: str, *, timeout: float, on_error: OnError) -> None:
        self.callback = callback
        self.name = f"{type(callback).__name__}.{method}"
        self.timeout: float = _own(callback, "hook_timeout", timeout)
        self.on_error: OnError = _own(callback, "on_hook_error", on_error)
        self._method: Callable[..., Any] = getattr(callback, method)
        self._unwanted = STAGES[method] - accepted(self._method, STAGES[method], self.name)
        self._objects: dict[str, Objects] = {}

    def __call__(
        self, accept: Callable[[Any], Any] = lambda result: result, /, **available: Any
    ) -> Coroutine[Any, Any, Any]:
        """Call the hook with what its signature accepts, and have its result accepted: see `call`."""
        return self.call(available, accept, within)

    def call(self, available: dict[str, Any], accept: Callable[[Any], Any], limit: Limiter) -> Coroutine[Any, Any, Any]:
        """Call the hook with what its signature accepts, and have its result accepted.

        Args:
            available: The stage's arguments; those that the method does not accept are taken out.
            accept: Returns what a result means, or raises what it asks for.
            limit: `within`, or what stands for it under the loop that runs.

        Raises:
            Exception: What the hook raised on purpose: a `Rejection` or something with a ``status_code``.
            HookFailedError: For everything else, unless the hook's failures are allowed: then None is returned.
        """
        return self.ask(self.accepted(available), accept, limit)

    async def ask(self, arguments: dict[str, Any], accept: Callable[[Any], Any], limit: Limiter) -> Any:
        """Do as `call` does, with arguments of which the method accepts every one."""
        try:
            result = self._method(**arguments)
            if hasattr(result, "__await__"):
                result = await limit(self.timeout, result)
            return accept(result)
        except Exception as exc:
            self.judge(exc)
            return None

    def objects(self, call_type: str) -> Objects:
        """Return what makes LiteLLM's objects of an endpoint's records, where the callback needs them."""
        found = self._objects.get(call_type)
        if found is None:
            found = self._objects[call_type] = Objects(self.callback, call_type)
        return found

    def start(self, available: dict[str, Any]) -> Any:
        """Call the method with what it accepts, and return what it gives: a result, something to await, an iterator.

        Args:
            available: The stage's arguments; those that the method does not accept are taken out.
        """
        return self._method(**self.accepted(available))

    def accepted(self, available: dict[str, Any]) -> dict[str, Any]:
        """Take those of a stage's arguments out that the method does not accept, and return the rest."""
        for name in self._unwanted:
            del available[name]
        return available

    def judge(self, exc: Exception) -> None:
        """Log what the hook raised if it is a crash, and return if crashes are allowed.

        Raises:
            Exception: What the hook raised on purpose.
            HookFailedError: In place of a crash.
        """
        refused = rejection(exc)
        if refused is not None and refused is not exc:
            raise refused from exc
        if refused or isinstance(exc, HookFailedError) or intended(exc):
            raise exc
        log_crash(exc, "%s failed (on_hook_error: %s)", self.name, self.on_error)
        if self.on_error != "allow":
            raise HookFailedError(self.name) from exc


def chain(callbacks: Iterable[object], method: str, *, timeout: float, on_error: OnError) -> tuple[Hook, ...]:
    """Return the hooks of one stage, in the order of the callbacks."""
    return tuple(
        Hook(callback, method, timeout=timeout, on_error=on_error)
        for callback in callbacks
        if overrides(callback, method)
    )


def overrides(callback: object, method: str) -> bool:
    """Tell whether a callback defines a hook itself, in its class, a base class or on the object.

    What `CallHooks` has does nothing, and neither does what LiteLLM's own base classes have.
    """
    defined = getattr(callback, method, None)
    function = getattr(defined, "__func__", None)
    if function is None:
        return callable(defined)
    return function is not getattr(CallHooks, method, None) and function.__module__ not in _BASES


def check(callback: object) -> None:
    """Refuse a callback of which a hook needs an argument that the gate does not have, or with a wrong attribute.

    Raises:
        TypeError: One line that says what is wrong.
    """
    name = type(callback).__name__
    timeout = _own(callback, "hook_timeout", 1)
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout < math.inf:
        raise TypeError(f"{name}.hook_timeout: expected seconds above 0, got {timeout!r}")
    window = _own(callback, "streaming_window", 0)
    if window != math.inf and (not isinstance(window, int) or isinstance(window, bool) or window < 0):
        raise TypeError(f"{name}.streaming_window: expected a whole number from 0, or math.inf, got {window!r}")
    channels = _own(callback, "streaming_channels", ())
    if not set([channels] if isinstance(channels, str) else channels) <= set(CHANNELS):
        raise TypeError(f"{name}.streaming_channels: expected some of {', '.join(CHANNELS)}, got {channels!r}")
    if _own(callback, "on_hook_error", "reject") not in ("reject", "allow"):
        raise TypeError(f"{name}.on_hook_error: expected reject or allow, got {_own(callback, 'on_hook_error', '')!r}")
    for method, available in STAGES.items():
        if overrides(callback, method):
            accepted(getattr(callback, method), available, f"{name}.{method}")


def _own(callback: object, attribute: str, default: Any) -> Any:
    """Return what a callback sets for itself, or the gate's own setting."""
    value = getattr(callback, attribute, None)
    return default if value is None else value


def new_data(result: Any) -> dict[str, Any] | None:
    """Read what a pre-call hook returned."""
    if result is None or isinstance(result, dict):
        return result
    refuse_if_asked(result)
    raise TypeError(f"a pre-call hook returned {type(result).__name__}; expected a dict, a str, an exception or None")


def refuse_if_asked(result: Any) -> None:
    """Raise the rejection that a hook returned instead of raising it."""
    if isinstance(result, str):
        raise Rejection(result)
    if isinstance(result, Exception):
        raise result


def replacement(kind: type[Record], result: Any) -> Record | None:
    """Read what a success hook returned: None, or a new response, as a record of a kind."""
    if isinstance(result, Exception):
        raise result
    response = None if result is None else record_of(result, kind)
    if response is not None and not isinstance(response, Record):
        raise TypeError(f"a success hook returned {type(result).__name__}; expected a response or None")
    return response


def added_headers(result: Any) -> Mapping[Any, Any]:
    """Read what a headers hook returned: headers by name, or nothing."""
    if result and not isinstance(result, Mapping):
        raise TypeError(f"a headers hook returned {type(result).__name__}; expected a dict or None")
    return result or {}


async def report_failure(
    hooks: Iterable[Hook], exc: Exception, request_data: dict[str, Any], caller: UserAPIKeyAuth
) -> GateError | None:
    """Tell every failure hook of a failed call; return the first error that one of them puts in its place."""
    if not hooks:
        return None
    replaced: GateError | None = None
    trace = mask("".join(traceback.format_exception(exc)))
    for hook in hooks:
        try:
            result = await hook(
                request_data=request_data,
                original_exception=exc,
                user_api_key_dict=caller,
                traceback_str=trace,
            )
        except HookFailedError:
            continue  # logged already; an observer that fails changes nothing
        except Exception as raised:
            result = raised
        if replaced is None and isinstance(result, Exception):
            replaced = intended(result)
    return replaced


def accepted(method: Callable[..., Any], available: frozenset[str], name: str) -> frozenset[str]:
    """Return the arguments a method takes of those there are.

    Raises:
        TypeError: The method needs an argument that the gate does not have.
    """
    parameters = [p for p in inspect.signature(method).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    named = {p.name for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}} & available
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    unknown = [wanted for wanted in needed if wanted not in named]
    if unknown:
        raise TypeError(f"{name} needs {', '.join(unknown)}; a hook may take {', '.join(sorted(available))} by keyword")
    return available if takes_all else frozenset(named)
