# ruff: noqa: E501, F401, I001  # typed in as LiteLLM's page shows it, unused imports and all
# fmt: off
# A handler with every call hook: calls are sent to another model.

from litellm.integrations.custom_logger import CustomLogger
import litellm
from litellm.proxy.proxy_server import UserAPIKeyAuth, DualCache
from typing import Optional, Literal


class Rewriting(CustomLogger):
    def __init__(self):
        self.seen = []

    async def async_pre_call_hook(self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict, call_type: Literal[
            "completion",
            "text_completion",
            "embeddings",
            "image_generation",
            "moderation",
            "audio_transcription",
        ]):
        data["model"] = "the-house-model"
        return data

    async def async_post_call_failure_hook(
        self,
        request_data: dict,
        original_exception: Exception, user_api_key_dict: UserAPIKeyAuth
    ):
        self.seen.append("failure")

    async def async_post_call_success_hook(
        self,
        data: dict,
        user_api_key_dict: UserAPIKeyAuth,
        response,
    ):
        self.seen.append("success")

    async def async_moderation_hook(
        self,
        data: dict,
        user_api_key_dict: UserAPIKeyAuth,
        call_type: Literal["completion", "embeddings", "image_generation", "moderation", "audio_transcription"],
    ):
        self.seen.append("moderation")

    async def async_post_call_streaming_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        response: str,
    ):
        self.seen.append("streaming")


handler = Rewriting()
