"""Guardrails as callbacks: `apply_guardrail` on the texts of requests, responses and streams, at the events it is for.

A guardrail is anything with `apply_guardrail` or `should_run_guardrail`: LiteLLM's `CustomGuardrail`, the gate's own of
that name, or an object of the same form.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.hooks import Hook, accepted, overrides
from asgi_llm_gate.litellm_guardrail import GuardrailEventHooks, is_at, requested
from asgi_llm_gate.shapes import CHANNELS
from asgi_llm_gate.shapes.places import Place, request_places, response_places

if TYPE_CHECKING:
    from collections.abc import Iterable

InputType = Literal["request", "response"]

# The hooks that run at a guardrail's events.
_EVENTS: Mapping[str, GuardrailEventHooks] = {
    "async_pre_call_hook": GuardrailEventHooks.pre_call,
    "async_moderation_hook": GuardrailEventHooks.during_call,
    "async_post_call_success_hook": GuardrailEventHooks.post_call,
    "async_post_call_streaming_hook": GuardrailEventHooks.post_call,
    "async_post_call_streaming_iterator_hook": GuardrailEventHooks.post_call,
}

# What `apply_guardrail` may take; of the first three, the form of the texts, it takes one.
_FORMS = ("inputs", "texts", "text")
_ARGUMENTS = frozenset({*_FORMS, "request_data", "input_type", "logging_obj", "images"})

# A stream's texts are looked at whole, and all of them.
_OF_STREAMS: Mapping[str, Any] = {"streaming_window": math.inf, "streaming_channels": CHANNELS}

_HookMethod = Callable[..., Any]


def as_guard(callback: object) -> object:
    """Return a callback that runs a guardrail at its events; any other callback as it is.

    Raises:
        TypeError: A method needs an argument that the gate does not have.
    """
    if isinstance(callback, _Guard):
        return callback
    own = _applies(callback)
    if not own and not callable(getattr(callback, "should_run_guardrail", None)):
        return callback
    if own:
        hooks = {method: hook for method, hook in _Applied(callback).hooks() if _may_run(callback, method)}
    else:
        hooks = {method: _native(callback, method) for method in _EVENTS if _has(callback, method)}
    if _is_on_request(callback):
        before = hooks.get("async_pre_call_hook")
        hooks["async_pre_call_hook"] = partial(_note_request, before)
    kind = type(type(callback).__name__, (_Guard,), {})
    guard: object = kind(callback, hooks)
    vars(guard).update(_OF_STREAMS if own else {"_native_guardrail": callback})
    if own:
        vars(guard)["wants_stream"] = partial(_wants_stream, callback)
    return guard


class _Guard:
    """A guardrail with other hooks in the place of those that run at its events."""

    def __init__(self, guardrail: object, hooks: Mapping[str, _HookMethod]) -> None:
        self._guardrail = guardrail
        vars(self).update(hooks)

    def __getattr__(self, name: str) -> Any:
        if name in _EVENTS or name == "_guardrail":
            raise AttributeError(name)
        return getattr(self._guardrail, name)


class _Applied:
    """A guardrail's `apply_guardrail` as the hooks of each event."""

    def __init__(self, guardrail: Any) -> None:
        self._guardrail = guardrail
        name = f"{type(guardrail).__name__}.apply_guardrail"
        self._method: _HookMethod = guardrail.apply_guardrail
        self._arguments = accepted(self._method, _ARGUMENTS, name)
        form = next((form for form in _FORMS if form in inspect.signature(self._method).parameters), None)
        if form is None:
            raise TypeError(f"{name} takes none of {', '.join(_FORMS)}")
        self._form = form

    def hooks(self) -> Iterable[tuple[str, _HookMethod]]:
        """Yield the hooks, those for streams included."""
        yield "async_pre_call_hook", self._before
        if self._guardrail_events is not None:  # without a choice of its own the request is looked at once
            yield "async_moderation_hook", self._beside
        yield "async_post_call_success_hook", self._after
        yield "async_post_call_streaming_hook", self._streamed

    @property
    def _guardrail_events(self) -> Any:
        return getattr(self._guardrail, "event_hook", None)

    async def _before(self, data: dict[str, Any], **_available: Any) -> None:
        if _runs(self._guardrail, data, GuardrailEventHooks.pre_call):
            await self._replace(list(request_places(data)), data, "request")

    async def _beside(self, data: dict[str, Any]) -> None:
        if _runs(self._guardrail, data, GuardrailEventHooks.during_call):
            texts = [place.text for place in request_places(data)]
            await self._apply(texts, data, "request")

    async def _after(self, data: dict[str, Any], response: Any) -> None:
        if _runs(self._guardrail, data, GuardrailEventHooks.post_call):
            await self._replace(list(response_places(response)), data, "response")

    async def _streamed(self, data: dict[str, Any], response: str) -> str | None:
        if not _runs(self._guardrail, data, GuardrailEventHooks.post_call):
            return None
        (text,) = await self._apply([str(response)], data, "response")
        return text

    async def _replace(self, places: list[Place], data: dict[str, Any], input_type: InputType) -> None:
        texts = await self._apply([place.text for place in places], data, input_type)
        for place, text in zip(places, texts, strict=True):
            if text != place.text:
                place.put(text)

    async def _apply(self, texts: list[str], data: dict[str, Any], input_type: InputType) -> list[str]:
        """Return what the guardrail makes of the texts; where there are none it is not asked."""
        if not texts:
            return texts
        given: dict[str, Any] = {"request_data": data, "input_type": input_type, "logging_obj": None, "images": None}
        if self._form == "text":
            return [(await self._call([text], {**given, "text": text}))[0] for text in texts]
        if self._form == "texts":
            return await self._call(texts, {**given, "texts": list(texts)})
        inputs: dict[str, Any] = {"texts": list(texts), "model": data.get("model")}
        if input_type == "request" and isinstance(data.get("messages"), list):
            inputs["structured_messages"] = data["messages"]
        return await self._call(texts, {**given, "inputs": inputs})

    async def _call(self, texts: list[str], available: Mapping[str, Any]) -> list[str]:
        result = self._method(**{name: available[name] for name in self._arguments if name in available})
        if isinstance(result, Awaitable):
            result = await result
        found = _texts(result)
        if found is None:
            return texts
        if len(found) != len(texts) or not all(isinstance(text, str) for text in found):
            raise TypeError(f"apply_guardrail returned {len(found)} texts, or others than texts, for {len(texts)}")
        return found


def _texts(result: Any) -> list[str] | None:
    """Return the texts that a guardrail returned, None if it said nothing about them."""
    if isinstance(result, Exception):
        raise result
    if isinstance(result, Mapping):
        result = result.get("texts")
    elif isinstance(result, tuple):  # texts and images
        result = result[0]
    elif isinstance(result, str):
        result = [result]
    if result is None or isinstance(result, list):
        return result
    raise TypeError(f"apply_guardrail returned {type(result).__name__}; expected inputs with texts")


def _native(guardrail: object, method: str) -> _HookMethod:
    """Return a guardrail's own hook, run when it is its turn."""
    accepted(getattr(guardrail, method), STAGES[method], f"{type(guardrail).__name__}.{method}")
    hook = Hook(guardrail, method, timeout=math.inf, on_error="reject")
    event = _EVENTS[method]

    def run(**available: Any) -> Any:
        data = available["request_data" if method.endswith("iterator_hook") else "data"]
        if _runs(guardrail, data, event):
            return hook.start(available)
        return available["response"] if method.endswith("iterator_hook") else None

    return run


async def _note_request(before: _HookMethod | None, **available: Any) -> Any:
    """Take the names of the guardrails that a request asks for out of it, to where the guardrails look for them."""
    data: dict[str, Any] = available["data"]
    names = requested(data)
    if data.pop("guardrails", None) is not None and isinstance(data.get("metadata"), dict):
        data["metadata"]["guardrails"] = sorted(names)
    result = before(**available) if before is not None else None
    return await result if isinstance(result, Awaitable) else result


def _applies(callback: object) -> bool:
    """Tell whether a callback defines `apply_guardrail`, which the base classes of that name only stand in for."""
    method = getattr(callback, "apply_guardrail", None)
    owner = next((kind for kind in type(callback).__mro__ if "apply_guardrail" in vars(kind)), None)
    return callable(method) and (owner is None or owner.__name__ != "CustomGuardrail")


def _has(callback: object, method: str) -> bool:
    return overrides(callback, method) and _may_run(callback, method)


def _may_run(callback: object, method: str) -> bool:
    """Tell whether a hook's event is among a guardrail's; where tags decide, each call must."""
    events = getattr(callback, "event_hook", None)
    return not isinstance(events, str | list | tuple | set) or is_at(events, _EVENTS[method])


def _is_on_request(callback: object) -> bool:
    return getattr(callback, "event_hook", None) is not None and not getattr(callback, "default_on", False)


def _wants_stream(guardrail: Any, data: dict[str, Any]) -> bool:
    """Tell whether a stream must be held for a guardrail; one that can't say will not be able to at its end either."""
    try:
        return _runs(guardrail, data, GuardrailEventHooks.post_call)
    except Exception:
        return True


def _runs(guardrail: Any, data: dict[str, Any], event: GuardrailEventHooks) -> bool:
    should_run = getattr(guardrail, "should_run_guardrail", None)
    return should_run is None or should_run(data=data, event_type=event) is True
