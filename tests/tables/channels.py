"""Where a call can carry text that a model reads, or say that it is another call than it is.

Rows of `TEXTS`: name; path; the body's fields, in which `FORBIDDEN` stands somewhere.
Rows of `DISGUISES`: name; query string; headers; fields of a chat call, of which none makes it less of one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

FORBIDDEN = "forbidden words"


class Text(NamedTuple):
    name: str
    path: str
    fields: dict[str, Any]


def said(content, role="user", **more):
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": role, "content": content, **more}]}


PART = {"type": "text", "text": FORBIDDEN}
FUNCTION = {"name": "f", "description": FORBIDDEN}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "description": FORBIDDEN, "schema": {}}}
CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"

TEXTS = [
    Text("a message", CHAT, said(FORBIDDEN)),
    Text("the system's", CHAT, said(FORBIDDEN, "system")),
    Text("the developer's", CHAT, said(FORBIDDEN, "developer")),
    Text("put in the assistant's mouth", CHAT, said(FORBIDDEN, "assistant")),
    Text("a tool's answer", CHAT, said(FORBIDDEN, "tool", tool_call_id="x")),
    Text("a role nobody knows", CHAT, said(FORBIDDEN, "x")),
    Text("a part", CHAT, said([PART])),
    Text("a part behind an image", CHAT, said([{"type": "image_url", "image_url": {"url": "u"}}, PART])),
    Text("a part of a tool's answer", CHAT, said([PART], "tool", tool_call_id="x")),
    Text("a refusal", CHAT, said([{"type": "refusal", "refusal": FORBIDDEN}], "assistant")),
    Text(
        "a tool call's arguments",
        CHAT,
        said(
            None,
            "assistant",
            tool_calls=[{"id": "x", "type": "function", "function": {"name": "f", "arguments": FORBIDDEN}}],
        ),
    ),
    Text("a prompt", TEXT, {"prompt": FORBIDDEN}),
    Text("one of several prompts", TEXT, {"prompt": ["Hi", FORBIDDEN]}),
    Text("what comes after", TEXT, {"prompt": "Hi", "suffix": FORBIDDEN}),
    Text("an input", EMBED, {"input": FORBIDDEN}),
    Text("one of several inputs", EMBED, {"input": ["Hi", FORBIDDEN]}),
    Text("an input to moderate", "/v1/moderations", {"input": FORBIDDEN}),
    Text("a part to moderate", "/v1/moderations", {"input": [PART]}),
    Text("an image's prompt", "/v1/images/generations", {"prompt": FORBIDDEN}),
    Text("a response's input", RESPONSES, {"input": FORBIDDEN}),
    Text("a response's message", RESPONSES, {"input": [{"role": "user", "content": FORBIDDEN}]}),
    Text(
        "a response's part",
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": FORBIDDEN}]}]},
    ),
    Text("a response's instructions", RESPONSES, {"input": "Hi", "instructions": FORBIDDEN}),
    Text(
        "a function's output",
        RESPONSES,
        {"input": [{"type": "function_call_output", "call_id": "x", "output": FORBIDDEN}]},
    ),
    Text(
        "behind an earlier response", RESPONSES, {"input": FORBIDDEN, "previous_response_id": "resp_1", "stream": None}
    ),
]


class Disguise(NamedTuple):
    name: str
    query: bytes
    headers: list[tuple[str, str]]
    fields: dict[str, Any]


DISGUISES = [
    Disguise("a user in the query", b"user=someone&stream=true&path=/health", [], {}),
    Disguise("a model in the query", b"model=other&api-version=2024-10-21", [], {}),
    Disguise("another method in a header", b"", [("x-http-method-override", "GET")], {}),
    Disguise("another method in the query", b"_method=GET", [], {}),
    Disguise("another path in a header", b"", [("x-original-url", "/health"), ("x-rewrite-url", "/health")], {}),
    Disguise("a prefix in a header", b"", [("x-forwarded-prefix", "/x"), ("x-script-name", "/v1")], {}),
    Disguise("a WebSocket to come", b"", [("connection", "upgrade"), ("upgrade", "websocket")], {}),
    Disguise("a preflight's headers", b"", [("access-control-request-method", "POST")], {}),
    Disguise("the gate's own keys", b"", [], {"proxy_server_request": {}, "litellm_call_id": "x"}),
    Disguise("a batch's envelope", b"", [], {"custom_id": "x", "url": "/health", "method": "GET", "body": {}}),
    Disguise("a stream of null", b"", [], {"stream": None}),
]
