"""The model of these examples: it repeats what it is told."""

import json
import time
from collections.abc import AsyncIterator


def answer(data: dict) -> dict:
    message = {"role": "assistant", "content": _said(data), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _head(data, "chat.completion") | {"choices": [choice]}


async def events(data: dict) -> AsyncIterator[bytes]:
    chunk = _head(data, "chat.completion.chunk")
    for delta in ({"role": "assistant", "content": ""}, *({"content": letter} for letter in _said(data)), {}):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}
        yield f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _said(data: dict) -> str:
    return f"You said: {data['messages'][-1]['content']}"


def _head(data: dict, kind: str) -> dict:
    return {"id": "chatcmpl-parrot", "object": kind, "created": int(time.time()), "model": data["model"]}
