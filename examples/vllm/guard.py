"""What `gate.yaml` names."""

from asgi_llm_gate import CallHooks, get_formatted_prompt


class Guard(CallHooks):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "Hello world" in get_formatted_prompt(data, call_type):
            return "This is an invalid response"
        return data


handler = Guard()
