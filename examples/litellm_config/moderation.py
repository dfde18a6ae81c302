# Judges a call while the model is already answering it; the argument `data` is all that it needs.
import litellm  # noqa: F401
from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger


class FirstMessageCheck(CustomLogger):
    async def async_moderation_hook(self, data: dict):
        messages = data.get("messages") or [{}]
        if messages[0].get("content") == "hello world":
            raise HTTPException(status_code=400, detail={"error": "Violated content safety policy"})


proxy_handler_instance = FirstMessageCheck()
