"""Behaviours of LiteLLM's proxy that its users report as bugs, each with the better one: streams, moderation, ends.

The numbers are those of our list of them; what is about requests and whole answers is in test_litellm_promises.py.
"""

from __future__ import annotations

import logging

import anyio
import orjson
import pytest
from fastapi import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.endpoints import ENDPOINTS
from asgi_llm_gate.errors import error_body
from tests.harness import CHAT, Request, Upstream, answer, chat
from tests.multipart import request_to

pytestmark = pytest.mark.anyio

TEXT = "/v1/completions"
STREAMED = chat(stream=True)
STREAM_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


def event(content, finish_reason=None, **more):
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "created": 7, "model": "m", "choices": [choice], **more})


def stream(*events):
    """An upstream that streams these events, one a message."""
    bodies = [{"type": "http.response.body", "body": body, "more_body": True} for body in events]
    return Upstream([STREAM_HEAD, *bodies, {"type": "http.response.body", "body": b"", "more_body": False}])


SPOKEN = (event("one"), event("two"), event("", "stop"), b"data: [DONE]\n\n")


async def streamed(*callbacks, upstream=None, body=STREAMED, **settings):
    return await Request(body).to(LLMGate(upstream or stream(*SPOKEN), callbacks=callbacks, **settings))


class Refuses(CallHooks):
    """A pre-call hook that returns a string."""

    async def async_pre_call_hook(self, data):
        return "No, 'thanks'"


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize(("path", "prefix"), [(CHAT, "chatcmpl-"), (TEXT, "cmpl-")])
async def test_row_1_a_string_is_a_200_in_the_endpoints_own_shape(path, prefix, wants):
    """Text verbatim, `model` echoed, ids as the endpoint has them, a finish reason, `[DONE]`."""
    body = orjson.dumps({"model": "m/x", "prompt": "Hi", "messages": [], "stream": wants})
    response = await Request(body, path=path).to(LLMGate(Upstream(), callbacks=[Refuses()]))
    assert response.status == 200
    chunks = response.chunks() if wants else [response.json()]
    assert {chunk["model"] for chunk in chunks} == {"m/x"}
    assert all(chunk["id"].startswith(prefix) for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert choices[-1]["finish_reason"] == "stop"
    parts = [
        choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") for choice in choices
    ]
    assert "".join(filter(None, parts)) == "No, 'thanks'"


@pytest.mark.parametrize("exc", [HTTPException(403, {"error": "no"}), ValueError("of the hook")], ids=repr)
async def test_row_2_one_envelope_on_all_routes(exc):
    """The same error has the same JSON everywhere, streamed or not, and a crash tells nothing."""

    class Raises(CallHooks):
        async def async_pre_call_hook(self, data):
            raise exc

    bodies = set()
    for row in ENDPOINTS:
        if row.inspected and row.error_body is error_body:
            for wants in (False, True):
                body = chat(prompt="Hi", input="Hi", stream=wants)
                response = await request_to(f"/v1{row.suffix}", body).to(LLMGate(Upstream(), callbacks=[Raises()]))
                assert response.error()["message"] in ("no", "Internal server error")
                bodies.add((response.status, response.body))
    assert len(bodies) == 1


class Stops(CallHooks):
    """A text hook that raises at a piece."""

    def __init__(self, piece, exc):
        self.piece = piece
        self.exc = exc

    async def async_post_call_streaming_hook(self, response):
        if response == self.piece:
            raise self.exc


@pytest.mark.parametrize("exc", [HTTPException(403, "no"), ValueError("of the hook")], ids=repr)
async def test_row_3_a_failure_in_mid_stream_is_an_error_event_and_a_clean_end(exc):
    """Never a dropped connection; the error has an object of all four fields, then `[DONE]`."""
    first, error = (await streamed(Stops("two", exc))).chunks()
    assert first == orjson.loads(event("one")[6:])
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert "of the hook" not in error["error"]["message"]


async def test_row_3_a_failure_at_the_first_chunk_has_its_own_status():
    """Before a byte is sent there is no need for a 200."""
    response = await streamed(Stops("one", HTTPException(403, "no")))
    assert (response.status, response.error()["message"]) == (403, "no")


async def test_row_4_an_iterator_hooks_dicts_are_chunks_and_its_early_return_is_a_finish():
    """Dicts become JSON events, and every open choice is closed."""

    class Iterates(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)
            yield {"id": "c", "choices": [{"index": 0, "delta": {"content": "mine"}}]}

    one, mine, last = (await streamed(Iterates())).chunks()
    assert [chunk["choices"][0]["delta"].get("content") for chunk in (one, mine, last)] == ["one", "mine", None]
    assert last["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("value", ["a string", 7, None, [1]], ids=repr)
async def test_row_4_what_is_no_chunk_never_goes_out(value, caplog):
    """A string or a Python object in a stream is a mistake of the hook, and no line of it reaches the client."""

    class Iterates(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)
            yield value

    chunks = (await streamed(Iterates())).chunks()
    assert [chunk.get("error", {}).get("code") for chunk in chunks] == [None, "internal_error"]
    assert "expected a chunk or a dict" in caplog.text


class Nothing(CallHooks):
    """Looks into streams every way there is, and changes nothing."""

    async def async_post_call_streaming_hook(self, response):
        return response

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:
            yield chunk


async def test_row_5_untouched_events_pass_byte_for_byte():
    """Names, ids, comments, the order of keys, spaces, unknown fields: all as they came."""
    events = [
        b": keep-alive\n\n",
        b'event: x\nid: 3\ndata:{ "model":"z",  "choices": [{"delta":{"content":"one"},"index":0}],"new":1.0}\n\n',
        b"retry: 3\r\n\r\n",
        *SPOKEN,
    ]
    assert (await streamed(Nothing(), upstream=stream(*events))).body == b"".join(events)


async def test_row_6_inherited_and_plain_hooks_run_in_streams_too():
    """A `def` in a base class is a hook like any other."""

    class Plain(CallHooks):
        def async_post_call_streaming_hook(self, response):
            return response.upper()

    class Child(Plain):
        pass

    assert b'"ONE"' in (await streamed(Child())).body


async def test_row_6_an_unknown_value_is_an_error(caplog):
    """A text hook that returns a number is a crash, not passed over."""

    class Counts(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            return len(response)

    assert (await streamed(Counts())).status == 500
    assert "a streaming hook returned int" in caplog.text


@pytest.mark.parametrize("user", [None, "", " ", 1, [], {"id": "u"}], ids=repr)
async def test_row_7_the_user_is_a_visible_string(user):
    """400 that names the field, before hooks run; a list of fields may count; the value is forwarded."""
    upstream = Upstream()
    gate = LLMGate(upstream, callbacks=[Refuses()], enforce_user_param=True, user_params=["user", "safety_identifier"])
    response = await Request(chat(user=user)).to(gate)
    assert (response.status, response.error()["param"]) == (400, "user")
    plain = LLMGate(upstream, enforce_user_param=True, user_params=["user", "safety_identifier"])
    await Request(chat(safety_identifier="u")).to(plain)
    assert upstream.data["safety_identifier"] == "u"


class Judges(CallHooks):
    """A moderation hook that refuses, and a log."""

    def __init__(self, verdict=None):
        self.verdict = verdict
        self.events = []

    async def async_moderation_hook(self, data):
        return self.verdict

    async def async_log_success_event(self, kwargs):
        self.events.append("success")

    async def async_log_failure_event(self, kwargs):
        self.events.append("failure")


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize(
    ("verdict", "ends"), [(None, ["success"]), ("no", ["failure"]), (HTTPException(403), ["failure"])]
)
async def test_row_8_a_moderated_call_ends_once(verdict, ends, wants):
    """Exactly one of success and failure is logged, whatever the verdict, streamed or not."""
    hooks = Judges(verdict)
    upstream = stream(*SPOKEN) if wants else None
    await Request(chat(stream=wants)).to(LLMGate(upstream or Upstream(), callbacks=[hooks]))
    assert hooks.events == ends


async def test_row_9_text_hooks_run_on_text_completions():
    """Where the endpoint streams text, its pieces are seen."""
    chunk = {"id": "c", "choices": [{"index": 0, "text": "one", "finish_reason": None}]}

    class Upper(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            return response.upper()

    upstream = stream(b"data: %b\n\n" % orjson.dumps(chunk), b"data: [DONE]\n\n")
    body = orjson.dumps({"model": "m", "prompt": "Hi", "stream": True})
    response = await Request(body, path=TEXT).to(LLMGate(upstream, callbacks=[Upper()]))
    assert response.chunks()[0]["choices"][0]["text"] == "ONE"


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.inspected], ids=lambda row: row.call_type)
def test_row_10_the_prompt_of_every_inspected_endpoint(row):
    """Under the documented name of the call and under LiteLLM's own."""
    prompts = {"completion": {"messages": [{"role": "user", "content": "Hi"}]}, "text_completion": {"prompt": "Hi"}}
    prompts |= {"image_generation": {"prompt": "Hi"}, "assistants": {"content": "Hi"}}
    prompts |= {f"audio_{work}": {"prompt": "Hi"} for work in ("transcription", "translation")}
    data = prompts.get(row.call_type, {"input": "Hi"})
    for name in (row.call_type, row.litellm_call_type):
        assert get_formatted_prompt(data, name) == "Hi"


async def test_row_11_a_hook_file_runs_once_and_finds_its_neighbours(tmp_path):
    """Two callbacks of one file share its state; a class will do as an instance."""
    (tmp_path / "rows_neighbour.py").write_text("loaded = []\n")
    (tmp_path / "rows_handlers.py").write_text(
        "import rows_neighbour\n"
        "rows_neighbour.loaded.append(1)\n"
        "class Handler:\n"
        "    async def async_pre_call_hook(self, data):\n"
        "        data['model'] = str(len(rows_neighbour.loaded))\n"
        "handler = Handler()\n"
    )
    (tmp_path / "gate.yaml").write_text(
        "litellm_settings:\n  callbacks: [rows_handlers.handler, rows_handlers.Handler]\n"
    )
    upstream = Upstream()
    await Request(chat()).to(LLMGate(upstream, config=tmp_path / "gate.yaml"))
    assert upstream.data["model"] == "1"


class Adds(CallHooks):
    """A headers hook."""

    async def async_post_call_response_headers_hook(self, data):
        return {"x-added": "1"}


class Fails(CallHooks):
    """A headers hook that fails."""

    async def async_post_call_response_headers_hook(self, data):
        raise ValueError("of the hook")


@pytest.mark.parametrize("others", [[], [Refuses()], [Judges(HTTPException(403))]], ids=["answer", "message", "error"])
@pytest.mark.parametrize("wants", [False, True])
async def test_row_12_one_failing_headers_hook_loses_no_others_headers(others, wants):
    """Headers are added to answers, streams, rejected messages and errors."""
    upstream = stream(*SPOKEN) if wants else Upstream()
    gate = LLMGate(upstream, callbacks=[Fails(), Adds(), *others])
    assert (await Request(chat(stream=wants)).to(gate)).header("x-added") == "1"


@pytest.mark.parametrize("mode", ["hold", "cut"])
async def test_row_12b_a_bad_verdict_cancels_siblings_and_upstream_of_a_stream(mode):
    """Both are awaited: when the call returns nothing of it is at work."""
    said = anyio.Event()
    ended = []

    class Sibling(CallHooks):
        async def async_moderation_hook(self, data):
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("sibling")

    class Late(CallHooks):
        async def async_moderation_hook(self, data):
            await said.wait()
            raise HTTPException(403, "no")

    async def app(scope, receive, send):
        try:
            await send(STREAM_HEAD)
            await send({"type": "http.response.body", "body": SPOKEN[0], "more_body": True})
            said.set()
            await anyio.sleep_forever()
        finally:
            ended.append("app")

    response = await streamed(Late(), Sibling(), upstream=app, moderation_mode=mode)
    assert response.body.count(b'"message":"no"') == 1
    assert sorted(ended) == ["app", "sibling"]


async def test_row_12c_nothing_of_host_or_hooks_is_forwarded():
    """Not the gate's keys, not state between hooks; the client's own `metadata` is, as sent."""

    class Keeps(CallHooks):
        async def async_pre_call_hook(self, data):
            data["metadata"]["mine"] = data["litellm_metadata"]["mine"] = 1

    upstream = Upstream()
    await Request(chat(metadata={"run": "r"})).to(LLMGate(upstream, callbacks=[Keeps()]))
    assert upstream.data == orjson.loads(chat(metadata={"run": "r"}))


async def test_row_13_a_failure_hook_is_honoured_and_its_own_errors_are_seen(caplog):
    """A crash in one is logged with its name; the next one's replacement counts, in a stream too."""

    class Crashes(CallHooks):
        async def async_post_call_failure_hook(self, original_exception):
            raise KeyError("of the failure hook")

    class Replaces(CallHooks):
        async def async_post_call_failure_hook(self, original_exception):
            return HTTPException(418, "replaced")

    hooks = [Stops("two", HTTPException(403, "no")), Crashes(), Replaces()]
    assert (await streamed(*hooks)).chunks()[-1]["error"]["message"] == "replaced"
    assert (await streamed(Refuses(), *hooks)).status == 418
    assert "Crashes.async_post_call_failure_hook failed" in caplog.text


@pytest.mark.parametrize("piece", ["one", "two"])
async def test_row_15_an_attribute_error_is_no_fault_of_the_client(piece):
    """It is a 500 before the stream, and an internal error inside it."""
    response = await streamed(Stops(piece, AttributeError("'NoneType' object has no attribute 'x'")))
    error = response.error() if piece == "one" else response.chunks()[-1]["error"]
    assert (error["type"], error["code"]) == ("internal_server_error", "internal_error")


@pytest.mark.parametrize("wants", [False, True])
async def test_row_16_an_upstreams_error_passes_unchanged(wants):
    """Every hook there is looks on, and not a byte or header changes, also where a stream was asked for."""
    body = b'{ "error":{"message":"m","type":"t","param":"p","code":"context_length_exceeded"}, "x":1}'
    messages = answer(body, 400, headers=[("x-request-id", "req_up"), ("retry-after", "3")])
    response = await streamed(Nothing(), Judges(), upstream=Upstream(messages), body=chat(stream=wants))
    assert response.sent == messages


@pytest.mark.parametrize("method", ["async_post_call_streaming_hook", "async_moderation_hook"])
async def test_row_17_a_hook_has_a_time_limit_of_its_own(method, caplog):
    """One that hangs is ended, named in the log, and refuses or is passed over as its callback says."""

    async def hangs(**_):
        await anyio.sleep_forever()

    hook = type("Hangs", (CallHooks,), {"hook_timeout": 0.001, "on_hook_error": "reject"})()
    setattr(hook, method, hangs)
    assert (await streamed(hook)).status == 500
    hook.on_hook_error = "allow"
    with caplog.at_level(logging.ERROR):
        assert (await streamed(hook)).body == b"".join(SPOKEN)
    assert f"Hangs.{method} failed" in caplog.text


async def test_row_18_a_client_cannot_set_what_the_gate_knows():
    """Neither `user_api_key_…` in its metadata, nor what the gate keeps beside the body."""
    seen = []

    class Looks(CallHooks):
        async def async_pre_call_hook(self, data, user_api_key_dict):
            seen.append((data["metadata"], data["proxy_server_request"], user_api_key_dict.user_id))

    lies = {"user_api_key_user_id": "admin", "user_api_key_team_id": "t", "user_api_key": "sk"}
    await Request(chat(metadata=lies, proxy_server_request={"url": "lie"})).to(LLMGate(Upstream(), callbacks=[Looks()]))
    ((metadata, asked, user),) = seen
    assert user is None
    assert metadata["requester_metadata"] == lies
    assert {metadata.get(name) for name in lies} & set(lies.values()) == set()
    assert asked["url"] != "lie"
