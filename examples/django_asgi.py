"""A Django project in one file, with a chat endpoint of its own, and the gate before it.

    uvicorn examples.django_asgi:application
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

import json
import time

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])


class Handler(CallHooks):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "Hello world" in get_formatted_prompt(data, call_type):
            return "This is an invalid response"
        data["model"] = "my-new-model"
        return data


async def chat(request: HttpRequest) -> HttpResponseBase:
    data = json.loads(request.body)
    said = f"You said: {data['messages'][-1]['content']}"
    if data.get("stream"):
        return StreamingHttpResponse(events(data["model"], said), content_type="text/event-stream")
    message = {"role": "assistant", "content": said, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return JsonResponse(head(data["model"], "chat.completion") | {"choices": [choice]})


async def events(model: str, said: str):
    chunk = head(model, "chat.completion.chunk")
    for delta in ({"role": "assistant", "content": ""}, *({"content": letter} for letter in said), {}):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}
        yield f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def head(model: str, kind: str) -> dict:
    return {"id": "chatcmpl-parrot", "object": kind, "created": int(time.time()), "model": model}


async def health(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"ok": True})


urlpatterns = [path("v1/chat/completions", chat), path("health", health)]
application = LLMGate(get_asgi_application(), callbacks=[Handler()], enforce_user_param=True)
