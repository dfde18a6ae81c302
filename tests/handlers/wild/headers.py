# Headers, and a per-piece hook of 2024.
from litellm.integrations.custom_logger import CustomLogger


class Labels(CustomLogger):
    async def async_post_call_response_headers_hook(
        self, data: dict, user_api_key_dict, response, request_headers=None, **kwargs
    ):
        return {"x-house": data["model"]}

    async def async_post_call_streaming_hook(self, user_api_key_dict, response: str):
        return response.replace("secret", "******")


handler = Labels()
