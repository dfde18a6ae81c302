"""The demo's handler, written as LiteLLM's page on call hooks writes them."""

# ruff: noqa: ARG002  # the hooks' signatures, whole

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.callhooks import CallHooks
from asgi_llm_gate.endpoints import get_formatted_prompt
from asgi_llm_gate.litellm_names import HTTPException

if TYPE_CHECKING:
    from asgi_llm_gate.auth import UserAPIKeyAuth


class DemoHandler(CallHooks):
    """Reject one greeting, send every other call to another model, and moderate beside the call."""

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | str:
        """Answer prompts with "Hello world" in place of the model; rewrite the model of all others."""
        if "Hello world" in get_formatted_prompt(data=data, call_type=call_type):
            return "This is an invalid response"
        data["model"] = "my-new-model"
        return data

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, call_type: str
    ) -> None:
        """Refuse to help with picking a lock, while the model is already answering."""
        if "pick a lock" in get_formatted_prompt(data=data, call_type=call_type):
            raise HTTPException(400, {"error": "Violated content safety policy"})
