# Sends every call to another model.
from typing import Literal

import litellm  # noqa: F401
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import DualCache, UserAPIKeyAuth


class ModelSwitch(CustomLogger):
    def __init__(self):
        self.failures = 0

    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        cache: DualCache,
        data: dict,
        call_type: Literal[
            "completion", "text_completion", "embeddings", "image_generation", "moderation", "audio_transcription"
        ],
    ):
        data["model"] = "my-new-model"
        return data

    async def async_post_call_failure_hook(
        self, request_data: dict, original_exception: Exception, user_api_key_dict: UserAPIKeyAuth
    ):
        self.failures += 1

    async def async_post_call_success_hook(self, data: dict, user_api_key_dict: UserAPIKeyAuth, response):
        pass


proxy_handler_instance = ModelSwitch()
