# Another error in the place of the model's, and the proxy's own exception from a hook.
from typing import Optional

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException, UserAPIKeyAuth


class FailureMapper(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if not data.get("user"):
            raise ProxyException(message="Who are you?", type="auth_error", param="user", code=403)

    async def async_post_call_failure_hook(
        self,
        request_data: dict,
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: Optional[str] = None,
    ) -> Optional[HTTPException]:
        if getattr(original_exception, "status_code", None) == 503:
            return HTTPException(status_code=502, detail="The model is having a rest")
        return None


handler = FailureMapper()
