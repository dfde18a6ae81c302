# Looks at the types of what it is given, as LiteLLM's own hooks do.
import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.types.utils import Choices, ModelResponseStream


class Footer(CustomLogger):
    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        if isinstance(response, litellm.ModelResponse):
            for choice in response.choices:
                if isinstance(choice, Choices) and isinstance(choice.message.content, str):
                    choice.message.content += " -- the house"
            response._hidden_params["footer"] = True
        return response

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        async for chunk in response:
            if isinstance(chunk, ModelResponseStream) and chunk.choices and chunk.choices[0].delta.content:
                chunk.choices[0].delta.content = chunk.choices[0].delta.content.upper()
            yield chunk


handler = Footer()
