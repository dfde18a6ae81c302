# A guardrail that only runs for calls that ask for it, and one that answers in the model's place.
from litellm.integrations.custom_guardrail import CustomGuardrail, ModifyResponseException


class Censor(CustomGuardrail):
    async def apply_guardrail(self, inputs, request_data, input_type, logging_obj=None):
        return {"texts": ["[gone]" for _ in inputs["texts"]]}


class NoSecrets(CustomGuardrail):
    async def apply_guardrail(self, inputs, request_data, input_type, logging_obj=None):
        if input_type == "request" and any("xyzzy" in text for text in inputs["texts"]):
            raise ModifyResponseException(
                message="I can't repeat that",
                model=request_data.get("model", ""),
                request_data=request_data,
                guardrail_name=self.guardrail_name,
            )
        return inputs


handler = Censor(guardrail_name="censor", event_hook="pre_call")
secrets = NoSecrets(guardrail_name="no-secrets", event_hook="pre_call", default_on=True)
