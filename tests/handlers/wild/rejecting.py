# Rejects by LiteLLM's own exception instead of returning a string.
import litellm
from litellm.exceptions import RejectedRequestError
from litellm.integrations.custom_logger import CustomLogger


class Rejecting(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data: dict, call_type: str):
        if data["messages"][-1]["content"].startswith("!"):
            raise RejectedRequestError(
                message="Commands are not for the model",
                model=data.get("model", ""),
                llm_provider="",
                request_data=data,
            )
        if data["messages"][-1]["content"].startswith("?"):
            raise litellm.exceptions.BadRequestError(
                message="Ask in a sentence", model=data.get("model", ""), llm_provider=""
            )
        return data


handler = Rejecting()
