# ruff: noqa: E501, F401, F821, I001  # typed in as LiteLLM's page shows it: some names of annotations are never imported
# fmt: off
# A handler that answers some prompts itself. Its return annotation can't be evaluated: Optional takes one type.

from litellm.integrations.custom_logger import CustomLogger
import litellm
from litellm.utils import get_formatted_prompt


class Refusing(CustomLogger):
    def __init__(self):
        pass

    async def async_pre_call_hook(self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict, call_type: Literal[
            "completion",
            "text_completion",
            "embeddings",
            "image_generation",
            "moderation",
            "audio_transcription",
        ]) -> Optional[dict, str, Exception]:
        formatted_prompt = get_formatted_prompt(data=data, call_type=call_type)

        if "Hello world" in formatted_prompt:
            return "This house does not greet worlds"

        return data


handler = Refusing()
