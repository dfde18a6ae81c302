# A guardrail with hooks of its own: they run at its event, and not at others.
from typing import Any, Optional, Union

from fastapi import HTTPException
from litellm.caching.caching import DualCache
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.common_utils.callback_utils import add_guardrail_to_applied_guardrails_header
from litellm.types.guardrails import GuardrailEventHooks


class LengthGuard(CustomGuardrail):
    def __init__(self, longest: int = 20, **kwargs: Any):
        self.longest = longest
        self.optional_params = kwargs
        super().__init__(**kwargs)

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict, call_type: str
    ) -> Optional[Union[Exception, str, dict]]:
        if self.should_run_guardrail(data=data, event_type=GuardrailEventHooks.pre_call) is not True:
            return data
        if any(len(message["content"]) > self.longest for message in data["messages"]):
            raise HTTPException(status_code=413, detail={"error": "Too long", "longest": self.longest})
        add_guardrail_to_applied_guardrails_header(request_data=data, guardrail_name=self.guardrail_name)
        return data

    async def async_moderation_hook(self, data: dict, user_api_key_dict: UserAPIKeyAuth, call_type: str):
        raise HTTPException(status_code=500, detail="not this guardrail's event")


handler = LengthGuard(guardrail_name="length", event_hook=GuardrailEventHooks.pre_call, default_on=True)
