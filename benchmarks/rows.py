"""What is measured, and what it may cost."""

# ruff: noqa: ARG002  # hooks with the arguments that users write
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from asgi_llm_gate import CallHooks, LLMGate
from benchmarks.traffic import CALL, OTHER_PATH, STREAM, UNLIKE, Traffic

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from asgi_llm_gate import UserAPIKeyAuth


class Rewrite(CallHooks):
    """Sends every call to another model."""

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Change the data, and return it."""
        data["model"] = "gpt-4o"
        return data


class Success(CallHooks):
    """Changes every answer."""

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> None:
        """Change the response in place."""
        message = response.choices[0].message
        message.content = message.content.replace("parcel", "package")


class Moderate(CallHooks):
    """Is content at once."""

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, call_type: str
    ) -> None:
        """Look on."""


class ModerateLater(CallHooks):
    """Is content after a turn of the loop."""

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, call_type: str
    ) -> None:
        """Suspend once."""
        await checkpoint()


class RewriteText(CallHooks):
    """Changes every piece of a stream."""

    async def async_post_call_streaming_hook(self, user_api_key_dict: UserAPIKeyAuth, response: str) -> str:
        """Change the piece."""
        return response.replace("parcel", "package")


class RewriteWindow(RewriteText):
    """Does so with 64 characters of look-ahead."""

    streaming_window = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One figure to measure.

    Attributes:
        name: What is measured.
        gate: The gate before the traffic's app.
        traffic: The requests.
        bound: The most it is to cost, as a ratio to the codec; None where none is set.
    """

    name: str
    gate: ASGIApp
    traffic: Traffic
    bound: float | None


def _row(name: str, traffic: Traffic, bound: float, *callbacks: CallHooks, **settings: Any) -> Row:
    return Row(name, LLMGate(traffic.app, config={}, callbacks=callbacks, **settings), traffic, bound)


def rows() -> list[Row]:
    """Return the rows, each with a gate of its own."""
    return [
        _row("request on another path", OTHER_PATH, 0.6, Rewrite()),
        _row("nothing configured", CALL, 5),
        _row("user check", CALL, 5, enforce_user_param=True),
        _row("pre-call hook", CALL, 6, Rewrite()),
        _row("pre-call, success hook", CALL, 12, Rewrite(), Success()),
        _row("pre-call, moderation hook", CALL, 30, Rewrite(), Moderate()),
        _row("pre-call, moderation hook that suspends", CALL, 30, Rewrite(), ModerateLater()),
        _row("chunk no hook looks into", STREAM, 0.6, Rewrite(), Success()),
        _row("chunk, text hook", STREAM, 5, RewriteText()),
        _row("chunk, text hook, 64-character window", STREAM, 8, RewriteWindow()),
        _row("chunk with an id of its own, text hook", UNLIKE, 5, RewriteText()),
        _row("chunk with an id of its own, 64-character window", UNLIKE, 8, RewriteWindow()),
    ]
