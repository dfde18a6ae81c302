"""The official client makes every kind of call through a served gate: rewritten, each comes back; refused, each raises.

A row is a name, how the client makes the call and reads its answer, what the app answers with, and what is to be read.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
from openai import OpenAI
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import Upstream, answer
from tests.servers import serve

MESSAGES = [{"role": "user", "content": "Hi"}]
VECTOR = [0.5, -2.0, 0.25]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def stream(*chunks, names=False, done=True):
    """A stream's messages, an event each."""
    heads = [f"event: {chunk['type']}\n" if names else "" for chunk in chunks]
    events = [f"{head}data: {json.dumps(chunk)}\n\n" for head, chunk in zip(heads, chunks, strict=True)]
    events += ["data: [DONE]\n\n"] * done
    start = answer(b"", content_type="text/event-stream")[0]
    start["headers"] = [(b"content-type", b"text/event-stream")]
    bodies = [{"type": "http.response.body", "body": event.encode(), "more_body": True} for event in events]
    return [start, *bodies, {"type": "http.response.body"}]


def whole(**content):
    return answer(json.dumps(content).encode())


def chat_chunk(content, finish_reason=None):
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def text_choice(text, finish_reason):
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def text_completion(text, finish_reason="stop"):
    choices = [text_choice(text, finish_reason)]
    return {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices}


def response(text, status="completed"):
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": [message] if text else [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def response_events(text):
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = response(text)["output"][0]
    part = item["content"][0]
    events = [
        {"type": "response.created", "response": response("", "in_progress")},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response(text)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


class Call(NamedTuple):
    name: str
    make: Any
    answer: Any
    reads: Any


def streamed_response(client):
    with client.responses.stream(model="m", input="Hi") as events:
        return events.get_final_response().output_text


CALLS = [
    Call(
        "chat",
        lambda client: client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content,
        whole(
            id="c",
            object="chat.completion",
            created=1,
            model="m",
            usage=USAGE,
            choices=[
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hello", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
        ),
        "hello",
    ),
    Call(
        "chat, streamed",
        lambda client: [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        ],
        stream(chat_chunk("hel"), chat_chunk("lo", "stop")),
        ["hel", "lo"],
    ),
    Call(
        "text",
        lambda client: client.completions.create(model="m", prompt="Hi").choices[0].text,
        whole(**text_completion("hello")),
        "hello",
    ),
    Call(
        "text, streamed",
        lambda client: [
            chunk.choices[0].text for chunk in client.completions.create(model="m", prompt="Hi", stream=True)
        ],
        stream(text_completion("hel", None), text_completion("lo")),
        ["hel", "lo"],
    ),
    Call(
        "embeddings, as numbers",
        lambda client: client.embeddings.create(model="m", input="Hi", encoding_format="float").data[0].embedding,
        whole(
            object="list",
            model="m",
            data=[{"object": "embedding", "index": 0, "embedding": VECTOR}],
            usage={"prompt_tokens": 1, "total_tokens": 1},
        ),
        VECTOR,
    ),
    Call(
        "embeddings, as the client asks for them, in base64",
        lambda client: client.embeddings.create(model="m", input=["Hi"]).data[0].embedding,
        whole(
            object="list",
            model="m",
            data=[{"object": "embedding", "index": 0, "embedding": PACKED}],
            usage={"prompt_tokens": 1, "total_tokens": 1},
        ),
        VECTOR,
    ),
    Call(
        "moderations",
        lambda client: client.moderations.create(model="m", input="Hi").model,
        whole(id="modr_1", model="m", results=[]),
        "m",
    ),
    Call(
        "images",
        lambda client: client.images.generate(model="m", prompt="a fox").data[0].b64_json,
        whole(created=1, data=[{"b64_json": "AA=="}]),
        "AA==",
    ),
    Call(
        "responses",
        lambda client: client.responses.create(model="m", input="Hi").output_text,
        whole(**response("hello")),
        "hello",
    ),
    Call("responses, streamed", streamed_response, stream(*response_events("hello"), names=True, done=False), "hello"),
    Call(
        "input tokens",
        lambda client: client.responses.input_tokens.count(model="m", input="Hi").input_tokens,
        whole(object="response.input_tokens", input_tokens=3),
        3,
    ),
]


class Rewrites(CallHooks):
    async def async_pre_call_hook(self, data):
        data["model"] = f"{data['model']}-rewritten"


class Refuses(CallHooks):
    async def async_pre_call_hook(self, data):
        raise HTTPException(403, {"error": "not for you"})


class Switch:
    """An app that can be changed while it is served."""

    app: Any = None

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def switch():
    return Switch()


@pytest.fixture(scope="module")
def client(switch):
    http = httpx2.Client(trust_env=False)
    with (
        serve(switch, lifespan="off") as url,
        OpenAI(base_url=f"{url}/v1", api_key="sk-x", max_retries=0, timeout=20, http_client=http) as client,
    ):
        yield client


rows = pytest.mark.parametrize("row", CALLS, ids=[row.name for row in CALLS])


@rows
def test_rewritten(switch, client, row):
    """The app gets the other model, and the client the app's answer."""
    app = Upstream(row.answer)
    switch.app = LLMGate(app, callbacks=[Rewrites()])
    assert row.make(client) == row.reads
    assert app.data["model"] == "m-rewritten"


@rows
def test_refused(switch, client, row):
    """The client raises the exception of the hook's status, with its message, and the app is not called."""
    app = Upstream(row.answer)
    switch.app = LLMGate(app, callbacks=[Refuses()])
    with pytest.raises(openai.PermissionDeniedError) as caught:
        row.make(client)
    assert (caught.value.body["message"], caught.value.status_code) == ("not for you", 403)
    assert caught.value.request_id
    assert app.calls == []
