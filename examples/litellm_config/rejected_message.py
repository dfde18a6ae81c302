# Answers a prompt itself: the string returned is what the user reads, in the form of the endpoint.
from typing import Literal, Optional

import litellm  # noqa: F401
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import DualCache, UserAPIKeyAuth
from litellm.utils import get_formatted_prompt


class GreetingFilter(CustomLogger):
    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        cache: DualCache,
        data: dict,
        call_type: Literal[
            "completion", "text_completion", "embeddings", "image_generation", "moderation", "audio_transcription"
        ],
    ) -> Optional[dict, str, Exception]:  # noqa: UP045  # LiteLLM's own words, which Python refuses to evaluate
        prompt = get_formatted_prompt(data=data, call_type=call_type)
        if "Hello world" in prompt:
            return "This is an invalid response"
        return data


proxy_handler_instance = GreetingFilter()
