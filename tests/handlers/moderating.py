# ruff: noqa: E501, F401, F821, I001  # typed in as LiteLLM's page shows it: some names of annotations are never imported
# fmt: off
# A handler that looks at the first message while the model already works on it.

from litellm.integrations.custom_logger import CustomLogger
import litellm
from fastapi import HTTPException


class Moderating(CustomLogger):
    def __init__(self):
        self.seen = []

    async def async_log_stream_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append("stream event")

    async def async_log_pre_api_call(self, model, messages, kwargs):
        self.seen.append("before the call")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append("success event")

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append("failure event")

    async def async_pre_call_hook(self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict, call_type: Literal["completion", "embeddings"]):
        data["model"] = "the-house-model"
        return data

    async def async_moderation_hook(
        self,
        data: dict,
    ):
        if data["messages"][0]["content"] == "hello world":
            raise HTTPException(
                status_code=400, detail={"error": "Not in this house"}
            )


handler = Moderating()
