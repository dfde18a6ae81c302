"""Handler files as they are met in the wild, each put before a small model and asked a few things.

Run as a program with a folder of such files it prints the outcomes as JSON: that is how an interpreter with LiteLLM
installed is asked.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import orjson

from asgi_llm_gate import LLMGate
from asgi_llm_gate.loading import load_callback
from tests.harness import CHAT, JSON, Message, Receive, Request, Response, Send

WILD = Path(__file__).parent / "handlers" / "wild"

SAID = "Write to ann@example.org, the secret is 42"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 0}}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "m-2026-01-01",
    "vendor": {"region": "north"},
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": SAID, "refusal": None, "vendor": [1]},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "service_tier": "default",
}
EMBEDDING = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m"}

# What each file's callbacks are asked: the messages' text, or a whole body under its path.
Ask = dict[str, Any]


def say(text: str, **fields: Any) -> Ask:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


ASKED: dict[str, tuple[list[str], list[Ask]]] = {
    "model_router": (["handler"], [say("hi"), say("hi" * 40), {"model": "m", "input": "hi"}]),
    "keyword_filter": (["rude", "secret"], [say("Blast it"), say("say MELLON", stream=True), say("hi")]),
    "rejecting": (["handler"], [say("!ls"), say("!ls", stream=True), say("?"), say("hi")]),
    "pii_masker": (["handler"], [say("I am bob@example.org"), say("hi", stream=True), say("hi", n=1)]),
    "old_guardrail": (["handler"], [say("hi"), {"model": "m", "input": ["one", "two"]}]),
    "on_request": (
        ["handler", "secrets"],
        [say("hi"), say("hi", guardrails=["censor"]), say("xyzzy"), say("xyzzy", stream=True)],
    ),
    "native_guardrail": (["handler"], [say("hi"), say("x" * 21)]),
    "typed_response": (["handler"], [say("hi"), say("hi", stream=True)]),
    "rate_limit": (["handler"], [say("hi", user="ann"), say("hi", user="ann"), say("hi", user="bob")]),
    "plain_class": (["Greeter"], [say("good morning"), say("is nobody there?"), say("hi")]),
    "audit_log": (["handler"], [say("hi"), say("hi", stream=True), say("fail")]),
    "failure_mapper": (["handler"], [say("hi"), say("fail", user="ann"), say("hi", user="ann")]),
    "headers": (["handler"], [say("hi"), say("hi", stream=True)]),
}


class Model:
    """An app that always says the same, and notes what it was asked."""

    def __init__(self) -> None:
        self.heard: Any = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.heard = orjson.loads((await receive())["body"])
        if scope["path"] != CHAT:
            await self._answer(send, EMBEDDING)
        elif self.heard["messages"][0]["content"] == "fail":
            await self._answer(send, {"error": {"message": "overloaded", "type": "server_error"}}, 503)
        elif self.heard.get("stream"):
            await self._stream(send)
        else:
            await self._answer(send, ANSWER)

    async def _answer(self, send: Send, content: Any, status: int = 200) -> None:
        await send(_start(status, "application/json"))
        await send({"type": "http.response.body", "body": orjson.dumps(content)})

    async def _stream(self, send: Send) -> None:
        await send(_start(200, "text/event-stream"))
        pieces = [SAID[at : at + 14] for at in range(0, len(SAID), 14)]
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces), {}]
        for number, delta in enumerate(deltas):
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if number == len(deltas) - 1 else None}
            head = {**ANSWER, "object": "chat.completion.chunk"}
            chunk = {name: head[name] for name in ("id", "object", "created", "model", "vendor")}
            body = b"data: %s\n\n" % orjson.dumps({**chunk, "choices": [choice]})
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _start(status: int, content_type: str) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type.encode())]}


async def outcomes(name: str, folder: Path = WILD) -> list[Any]:
    """What comes of each thing that a file's callbacks are asked, and what the file itself has noted."""
    names, asked = ASKED[name]
    model = Model()
    gate = LLMGate(model, callbacks=[load_callback(f"{name}.{one}", folder) for one in names])
    found = [await _outcome(gate, model, body) for body in asked]
    module = sys.modules[name]
    notes = [getattr(module, attribute) for attribute in ("hits", "events") if hasattr(module, attribute)]
    return [*found, *notes]


async def _outcome(gate: LLMGate, model: Model, body: Ask) -> list[Any]:
    model.heard = None
    path = CHAT if "messages" in body else "/v1/embeddings"
    response = await Request(orjson.dumps(body), path=path, headers=JSON).to(gate)
    heard = model.heard and {name: value for name, value in body.items() if model.heard.get(name) != value}
    changed = {name: model.heard.get(name) for name in heard} if heard else heard
    more = {name: value for name, value in response.headers if name in {"x-house", "retry-after"}}
    return [response.status, _said(response, streamed=body.get("stream") is True), changed, *([more] if more else [])]


def _said(response: Response, *, streamed: bool) -> Any:
    """The text of an answer, or an error's message; the whole of one that has more to it."""
    if streamed and response.status == 200:
        chunks = [
            json.loads(event[6:]) for event in response.body.decode().split("\n\n") if event[6:] not in ("", "[DONE]")
        ]
        of_the_model = [chunk for chunk in chunks if "vendor" in chunk]
        assert all(list(chunk) == ["id", "object", "created", "model", "vendor", "choices"] for chunk in of_the_model)
        assert all(list(chunk["choices"][0]) == ["index", "delta", "finish_reason"] for chunk in of_the_model)
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    content = json.loads(response.body)
    if "error" in content:
        return content["error"]["message"]
    if content.get("id") != ANSWER["id"]:
        return content["choices"][0]["message"]["content"] if "choices" in content else content
    text = content["choices"][0]["message"].pop("content")
    content["choices"][0]["message"] = {"content": text, **content["choices"][0]["message"]}
    expected = json.loads(json.dumps(ANSWER))
    expected["choices"][0]["message"]["content"] = text
    assert content == expected
    return text


async def main() -> None:
    folder = Path(sys.argv[1])
    found = {name: await outcomes(name, folder) for name in ASKED}
    sys.stdout.write(json.dumps([find_spec("litellm") is not None, found]))


if __name__ == "__main__":
    anyio.run(main)
