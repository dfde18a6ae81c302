# Only `apply_guardrail`, in its signature of 2026: addresses are masked on both ways.
import re
from typing import TYPE_CHECKING, Literal, Optional

from litellm.integrations.custom_guardrail import CustomGuardrail, log_guardrail_information
from litellm.types.guardrails import GuardrailEventHooks
from litellm.types.utils import GenericGuardrailAPIInputs

if TYPE_CHECKING:
    from litellm.litellm_core_utils.litellm_logging import Logging as LiteLLMLoggingObj

ADDRESS = re.compile(r"[\w.]+@[\w.]+\w")


class PIIMasker(CustomGuardrail):
    def __init__(self, **kwargs):
        self.seen: list = []
        super().__init__(**kwargs)

    @log_guardrail_information
    async def apply_guardrail(
        self,
        inputs: GenericGuardrailAPIInputs,
        request_data: dict,
        input_type: Literal["request", "response"],
        logging_obj: Optional["LiteLLMLoggingObj"] = None,
    ) -> GenericGuardrailAPIInputs:
        self.seen.append(input_type)
        inputs["texts"] = [ADDRESS.sub("<address>", text) for text in inputs.get("texts", [])]
        return inputs


handler = PIIMasker(
    guardrail_name="addresses",
    event_hook=[GuardrailEventHooks.pre_call, GuardrailEventHooks.post_call],
    default_on=True,
)
