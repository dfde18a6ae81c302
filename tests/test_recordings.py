"""Real exchanges pass the gate unharmed: the response byte for byte, the request value for value.

`LLM_GATE_RECORDINGS` names a folder of recorded exchanges. Without it the tests run on our own fixtures alone.
"""

from __future__ import annotations

import json

import anyio
import orjson
import pytest

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.deployments import model_of
from tests.harness import Request, Upstream
from tests.hosts import Reader, Witness
from tests.services import missing
from tests.streams import RECORDINGS, all_exchanges, exchanges

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

CALLS = {
    "chat/completions": "completion",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "moderations": "moderation",
    "images/generations": "image_generation",
    "images/edits": "image_edit",
    "responses": "responses",
    "responses/input_tokens": "responses_input_tokens",
    "messages": "anthropic_messages",
}


def of_calls(found):
    """Those of the exchanges that belong to an endpoint the gate looks into."""
    return {name: exchange for name, exchange in found.items() if exchange["call"] in CALLS}


EXCHANGES = of_calls(all_exchanges())


class PassesLate(CallHooks):
    """A moderation hook that comes to its verdict only when the app has nothing left to do before it."""

    async def async_moderation_hook(self, data):
        await anyio.wait_all_tasks_blocked()


class ReadsStreams(CallHooks):
    """Hooks of streams that look at every text and every chunk, and change nothing."""

    streaming_channels = ("text", "tool_calls", "refusal", "reasoning")

    async def async_post_call_streaming_hook(self, user_api_key_dict, response):
        return str(response)

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        async for chunk in response:
            yield chunk


class ReadsText(CallHooks):
    async def async_post_call_streaming_hook(self, response):
        """Look on."""


HOOKS = {
    "no hook": list,
    "a pre-call hook": lambda: [Reader()],
    "hooks of every stage": lambda: [Witness()],
    "hooks of every stage, twice": lambda: [Witness(), Witness()],
    "late moderation": lambda: [PassesLate()],
    "a text hook": lambda: [ReadsText()],
    "hooks of streams, late moderation": lambda: [ReadsStreams(), PassesLate(), ReadsStreams()],
    "late moderation, hooks of every stage": lambda: [PassesLate(), Witness()],
}

CUTS = {
    "in one piece": lambda body: [body],
    "in pieces of 7 bytes": lambda body: [body[at : at + 7] for at in range(0, len(body), 7)],
    "in thirds, with empty pieces between": lambda body: [
        *(body[: len(body) // 3], b"", body[len(body) // 3 : 2 * len(body) // 3], b""),
        *(body[2 * len(body) // 3 :], b""),
    ],
    "line by line": lambda body: body.splitlines(keepends=True),
}

each = pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
hooks = pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)


def asked(exchange, cut):
    """The exchange's request, its body cut into messages."""
    sent = exchange["request"]
    path, _, query = sent["path"].partition("?")
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in cut(sent["body"].encode())]
    return Request(
        path=path,
        method=sent["method"],
        headers=sent["headers"].items(),
        messages=[*messages, {"type": "http.request"}],
        scope={"query_string": query.encode()},
    )


def answered(exchange, cut):
    """The messages of the exchange's response, its body cut into messages; JSON has its length."""
    got = exchange["response"]
    body = got["body"].encode()
    headers = [("Content-Type", got["content_type"]), *got["headers"].items(), ("set-cookie", "a"), ("set-cookie", "b")]
    if "event-stream" not in got["content_type"]:
        headers.append(("content-length", str(len(body))))
    start = {"type": "http.response.start", "status": got["status"]}
    start["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    pieces = [{"type": "http.response.body", "body": piece, "more_body": True} for piece in cut(body)]
    return [start, *pieces, {"type": "http.response.body"}]


@hooks
@each
async def test_request_is_the_same_to_the_value_and_response_to_the_byte(exchange, hooks):
    """The app gets every value the client sent, on the path and with the query it was sent to, and its answer passes.

    Hooks that look at everything and change nothing leave status, headers and body as the app sent them, however both
    are cut.
    """
    for cut in CUTS.values():
        await assert_the_same(exchange, cut, hooks)


async def assert_the_same(exchange, cut, hooks):
    messages = answered(exchange, cut)
    app = Upstream(messages)
    request = asked(exchange, cut)
    response = await request.to(LLMGate(app, callbacks=hooks()))
    assert dumped(app.data) == dumped(json.loads(exchange["request"]["body"]))
    ((scope, _),) = app.calls
    assert {**scope, "headers": None} == {**request.scope, "headers": None}
    assert response.status == exchange["response"]["status"]
    assert response.sent[0] == messages[0]
    assert response.body == exchange["response"]["body"].encode()


def dumped(data):
    """Canonical text, for 1 is neither 1.0 nor true; the order of keys says nothing."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


@each
async def test_hooks_see_the_exchange(exchange):
    """Hooks are given the request as sent and, of a plain success, the response; of an error, the error."""
    witness = Witness()
    got = exchange["response"]
    app = Upstream(answered(exchange, CUTS["line by line"]))
    await asked(exchange, CUTS["line by line"]).to(LLMGate(app, callbacks=[witness]))
    sent = json.loads(exchange["request"]["body"])
    model = model_of(exchange["request"]["path"].partition("?")[0])
    if model is not None:
        sent["model"] = model
    assert witness.call_types == [CALLS[exchange["call"]]]
    assert witness.requests == witness.judged == [sent]
    plain = got["status"] == 200 and "json" in got["content_type"]
    assert witness.responses == ([json.loads(got["body"])] if plain else [])
    assert [failure.status_code for failure in witness.failures] == [got["status"]] * (got["status"] >= 400)


@each
async def test_pieces_of_a_stream_are_not_gathered(exchange):
    """With hooks that do not look into a stream, its messages go on one by one, as they come."""
    messages = answered(exchange, CUTS["line by line"])
    stream = "event-stream" in exchange["response"]["content_type"]
    response = await asked(exchange, CUTS["in one piece"]).to(LLMGate(Upstream(messages), callbacks=[Witness()]))
    assert (response.sent == messages) is stream


NOT_REPLAYED = "NOT RUN: real traffic, because LLM_GATE_RECORDINGS is not set; only our own fixtures were replayed"


def test_recordings_are_there():
    """The folder named has exchanges to replay."""
    assert of_calls(exchanges(RECORDINGS or missing(NOT_REPLAYED)))
