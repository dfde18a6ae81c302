"""A Starlette app with a chat endpoint of its own, and the gate before it.

    python examples/starlette_app.py
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

import json
import re
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt


class Handler(CallHooks):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "Hello world" in get_formatted_prompt(data, call_type):
            return "This is an invalid response"
        data["messages"].insert(0, {"role": "system", "content": "Be polite."})
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        response.choices[0].message.content += " (checked)"


async def chat(request: Request) -> Response:
    data = await request.json()
    rules, *_, heard = [message["content"] for message in data["messages"]]
    said = f"{rules} You said: {heard}"
    if data.get("stream"):
        return StreamingResponse(events(data["model"], said), media_type="text/event-stream")
    message = {"role": "assistant", "content": said, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return JSONResponse(head(data["model"], "chat.completion") | {"choices": [choice]})


async def events(model: str, said: str):
    chunk = head(model, "chat.completion.chunk")
    words = re.findall(r"\s*\S+", said)
    for delta in ({"role": "assistant", "content": ""}, *({"content": word} for word in words), {}):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}
        yield f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def head(model: str, kind: str) -> dict:
    return {"id": "chatcmpl-parrot", "object": kind, "created": int(time.time()), "model": model}


async def health(request: Request) -> Response:
    return JSONResponse({"ok": True})


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)])
app.add_middleware(LLMGate, callbacks=[Handler()], enforce_user_param=True)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
