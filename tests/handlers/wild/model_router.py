# Long prompts go to a bigger model. Signature of 2024, early return for what is no chat.
from typing import Literal, Optional, Union

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy.proxy_server import DualCache, UserAPIKeyAuth

litellm.drop_params = True
LIMIT = 40


class ModelRouter(CustomLogger):
    def __init__(self):
        super().__init__()

    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        cache: DualCache,
        data: dict,
        call_type: Literal["completion", "text_completion", "embeddings"],
    ) -> Optional[Union[Exception, str, dict]]:
        if call_type != "completion":
            return data
        size = sum(len(m["content"]) for m in data["messages"] if isinstance(m.get("content"), str))
        data["model"] = "big" if size > LIMIT else "small"
        data.setdefault("metadata", {})["routed_by"] = type(self).__name__
        return data


handler = ModelRouter()
