# A counter in the cache, and a 429 with its header.
from fastapi import HTTPException, status
from litellm.caching.dual_cache import DualCache
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth


class PerUser(CustomLogger):
    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict, call_type: str
    ):
        key = f"calls:{user_api_key_dict.end_user_id or data.get('user')}"
        calls = await cache.async_increment_cache(key=key, value=1, ttl=60)
        if calls > 1:
            raise HTTPException(
                status_code=status.HTTP_429_TOO_MANY_REQUESTS,
                detail={"error": f"One call a minute, this is number {int(calls)}"},
                headers={"retry-after": "60"},
            )
        return data


handler = PerUser()
