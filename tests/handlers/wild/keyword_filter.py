# Two instances of one class; what they count is counted by the module.
from typing import Optional

from litellm._logging import verbose_proxy_logger
from litellm.integrations.custom_logger import CustomLogger
from litellm.utils import get_formatted_prompt

hits: dict = {}


class KeywordFilter(CustomLogger):
    def __init__(self, words, answer, **kwargs):
        self.words = words
        self.answer = answer
        super().__init__(**kwargs)

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type) -> Optional[str]:
        prompt = get_formatted_prompt(data=data, call_type="completion").lower()
        for word in self.words:
            if word in prompt:
                hits[word] = hits.get(word, 0) + 1
                verbose_proxy_logger.debug("%s for the %d. time", word, sum(hits.values()))
                return f"{self.answer} ({sum(hits.values())})"
        return None


rude = KeywordFilter(["blast"], "Mind your language")
secret = KeywordFilter(["mellon"], "That word is not for the model")
