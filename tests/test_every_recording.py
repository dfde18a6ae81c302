"""Every recorded exchange of an endpoint that the gate looks into passes hooks of every kind, and nothing is changed.

Which endpoints those are the table of endpoints says. `LLM_GATE_RECORDINGS` names a folder of recorded exchanges; our
own fixtures are replayed always.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import orjson
import pytest

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.endpoints import Routes
from tests.harness import Request, Upstream

pytestmark = pytest.mark.anyio


def is_replayed(exchange):
    """Tell whether a gate looks into an exchange, and its body was recorded; a batch needs its file first."""
    sent = exchange["request"]
    endpoint = Routes().find(sent["path"].partition("?")[0])
    known = endpoint is not None and endpoint.inspected and endpoint.call_type != "batches"
    return known and (sent["body"] or "").startswith("{")


FOLDERS = [Path(__file__).parent / "fixtures", *map(Path, filter(None, [os.environ.get("LLM_GATE_RECORDINGS")]))]
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.json"))]
EXCHANGES = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
REPLAYED = {name: exchange for name, exchange in EXCHANGES.items() if is_replayed(exchange)}


class LooksAtEverything(CallHooks):
    """Every hook there is: each looks, and none changes anything."""

    streaming_channels = ("text", "tool_calls", "refusal", "reasoning")

    def __init__(self, window):
        self.streaming_window = window
        self.seen = set()
        self.logged = []

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        self.seen.add("pre")
        assert isinstance(get_formatted_prompt(data, call_type), str)
        return data

    async def async_moderation_hook(self, data, user_api_key_dict, call_type):
        self.seen.add("moderation")
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        self.seen.add("success")
        assert response.model_dump() == json.loads(json.dumps(response.model_dump()))
        return response

    async def async_post_call_streaming_hook(self, user_api_key_dict, response):
        self.seen.add("text")
        return str(response)

    async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
        async for chunk in response:
            self.seen.add("iterator")
            yield chunk

    async def async_post_call_failure_hook(self, request_data, original_exception, user_api_key_dict):
        self.seen.add("failure")

    async def async_post_call_response_headers_hook(self, data, user_api_key_dict, response):
        self.seen.add("headers")
        return {}

    async def async_log_pre_api_call(self, model, messages, kwargs):
        self.seen.add("log pre")

    async def async_log_stream_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.add("log stream")
        self.logged.append(_with_what_a_window_keeps(response_obj.model_dump()))

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.add("log success")

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.add("log failure")


def _with_what_a_window_keeps(value):
    """What is the same however a text is cut: no log probabilities, which spell out its pieces, and no empty parts."""
    if isinstance(value, dict):
        return {name: _with_what_a_window_keeps(item) for name, item in value.items() if name != "logprobs"}
    if isinstance(value, list):
        items = [_with_what_a_window_keeps(item) for item in value]
        return [item for item in items if item not in EMPTY_PARTS]
    return value


EMPTY_PARTS = [{"type": "text", "text": ""}, {"type": "thinking", "thinking": []}]


def request_of(exchange):
    sent = exchange["request"]
    path, _, query = sent["path"].partition("?")
    return Request(
        sent["body"].encode(),
        path,
        sent["method"],
        sent["headers"].items(),
        scope={"query_string": query.encode()},
    )


def response_of(exchange):
    """The recorded response's messages, a line each."""
    got = exchange["response"]
    headers = [("content-type", got["content_type"]), *got["headers"].items()]
    start = {"type": "http.response.start", "status": got["status"]}
    start["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    lines = got["body"].encode().splitlines(keepends=True)
    return [start, *({"type": "http.response.body", "body": line, "more_body": True} for line in lines)]


def canonical(data):
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


async def through(exchange, window=0, **settings):
    """Send an exchange through a gate; return the response, the app and the hooks."""
    app = Upstream([*response_of(exchange), {"type": "http.response.body"}])
    hooks = LooksAtEverything(window)
    response = await request_of(exchange).to(LLMGate(app, callbacks=[hooks], **settings))
    return response, app, hooks


each = pytest.mark.parametrize("exchange", REPLAYED.values(), ids=REPLAYED)


@pytest.mark.parametrize("mode", ["hold", "cut"])
@each
async def test_nothing_is_changed(exchange, mode):
    """The response goes out byte for byte, the request goes on value for value, and every kind of hook has looked."""
    response, app, hooks = await through(exchange, moderation_mode=mode)
    assert response.sent[0] == response_of(exchange)[0]
    assert response.body == exchange["response"]["body"].encode()
    assert canonical(app.data) == canonical(json.loads(exchange["request"]["body"]))
    assert app.calls[0][0]["path"] == exchange["request"]["path"].partition("?")[0]
    assert {"pre", "moderation", "headers", "log pre"} <= hooks.seen
    # A stream may begin well and fail later.
    failed = "failure" in hooks.seen
    assert failed or exchange["response"]["status"] < 400
    assert {"log success", "log failure"} & hooks.seen == {"log failure" if failed else "log success"}
    if "json" in exchange["response"]["content_type"]:
        assert ("success" in hooks.seen) is not failed


STREAMS = {name: each for name, each in REPLAYED.items() if "event-stream" in each["response"]["content_type"]}


@pytest.mark.parametrize("exchange", STREAMS.values(), ids=STREAMS)
async def test_a_window_moves_text_and_changes_none(exchange):
    """Held back and let go, the texts of a stream are put together to what they are without look-ahead."""
    whole = [await through(exchange, window) for window in (0, 40)]
    (_, _, plain), (_, _, held) = whole
    assert held.seen == plain.seen
    assert canonical(held.logged) == canonical(plain.logged)


def test_endpoints_of_the_recordings():
    """Each endpoint that the gate looks into and that was recorded is among those replayed."""
    assert {exchange["call"] for exchange in REPLAYED.values()} >= {"chat/completions", "responses", "embeddings"}
