# `apply_guardrail` as it was in 2025: one text in, one text out.
from typing import List, Optional

from litellm.integrations.custom_guardrail import CustomGuardrail


class Shouting(CustomGuardrail):
    async def apply_guardrail(
        self, text: str, language: Optional[str] = None, entities: Optional[List[str]] = None
    ) -> str:
        return text.upper()


handler = Shouting(guardrail_name="shouting", event_hook="pre_call", default_on=True)
