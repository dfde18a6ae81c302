"""LiteLLM's base class of guardrails, and what such files import beside it, for where LiteLLM is not installed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_llm_gate.callhooks import CallHooks

if TYPE_CHECKING:
    from collections.abc import Iterable

_Function = TypeVar("_Function")


class CustomLogger(CallHooks):
    """The base class of LiteLLM's handlers; it takes whatever arguments a handler passes on."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        super().__init__()


class GuardrailEventHooks(StrEnum):
    """When a guardrail runs."""

    pre_call = "pre_call"
    post_call = "post_call"
    during_call = "during_call"
    logging_only = "logging_only"
    pre_mcp_call = "pre_mcp_call"
    during_mcp_call = "during_mcp_call"
    post_mcp_call = "post_mcp_call"
    realtime_input_transcription = "realtime_input_transcription"


class CustomGuardrail(CustomLogger):
    """The base class of LiteLLM's guardrails.

    Args:
        guardrail_name: The name under which a request may ask for it.
        supported_event_hooks: The events it has code for.
        event_hook: The event or events it runs at; all of them if None.
        default_on: It runs without being asked for.
        options: Whatever else a version of LiteLLM knows; each becomes an attribute.
    """

    def __init__(
        self,
        guardrail_name: str | None = None,
        supported_event_hooks: list[Any] | None = None,
        event_hook: Any = None,
        default_on: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.guardrail_name = guardrail_name
        self.supported_event_hooks = supported_event_hooks
        self.event_hook = event_hook
        self.default_on = default_on
        self.optional_params = options
        vars(self).update(options)

    def should_run_guardrail(self, data: dict[str, Any], event_type: Any) -> bool:
        """Tell whether it runs at an event of a call: by its mode, and by default or because the call asks for it."""
        if not is_at(self.event_hook, event_type):
            return False
        return self.event_hook is None or self.default_on or self.guardrail_name in requested(data)

    async def apply_guardrail(
        self,
        inputs: dict[str, Any],
        request_data: dict[str, Any],  # noqa: ARG002  # LiteLLM's signature
        input_type: str,  # noqa: ARG002
        logging_obj: Any = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return texts in the place of those in ``inputs["texts"]``, or raise to refuse them."""
        return inputs


def is_at(event_hook: Any, event: Any) -> bool:
    """Tell whether an event is among a guardrail's, which may be one, several, or None for all."""
    wanted: Iterable[Any] = event_hook if isinstance(event_hook, list | tuple | set) else [event_hook]
    return event_hook is None or str(getattr(event, "value", event)) in {str(getattr(x, "value", x)) for x in wanted}


def requested(data: dict[str, Any]) -> set[str]:
    """Return the names of the guardrails that a request asks for, in its `guardrails` or its metadata's."""
    names: set[str] = set()
    for holder in (data, data.get("metadata"), data.get("litellm_metadata")):
        given = holder.get("guardrails") if isinstance(holder, dict) else None
        for entry in given if isinstance(given, list) else ():
            names.update([entry] if isinstance(entry, str) else entry if isinstance(entry, dict) else ())
    return names


def log_guardrail_information(function: _Function) -> _Function:
    """Return the method as it is: the gate logs its hooks itself."""
    return function


def add_guardrail_to_applied_guardrails_header(request_data: dict[str, Any], guardrail_name: str | None) -> None:
    """Note that a guardrail has been applied, in the call's metadata."""
    if guardrail_name is not None:
        metadata = request_data.setdefault("metadata", {})
        applied = metadata.setdefault("applied_guardrails", [])
        if guardrail_name not in applied:
            applied.append(guardrail_name)
