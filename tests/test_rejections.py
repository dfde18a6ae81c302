"""What a client reads when a hook refuses its call: a normal answer in its endpoint's own shape, or one envelope."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.endpoints import ENDPOINTS
from asgi_llm_gate.errors import error_body
from asgi_llm_gate.shapes import chat as chat_shape
from asgi_llm_gate.shapes import text as text_shape
from tests.harness import CHAT, Request, Upstream, answer, chat
from tests.multipart import request_to

pytestmark = pytest.mark.anyio

# A loaded machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = "/v1/completions"
MESSAGE = 'This is an invalid response: \u00fc \U0001f6ab "quoted"\n\nsecond paragraph\r\ndata: x'
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

stages = pytest.mark.parametrize("stage", ["async_pre_call_hook", "async_moderation_hook"])


def refusing(stage="async_pre_call_hook", message=MESSAGE, edit=None):
    """A callback that refuses in one stage, after an edit of the data."""

    async def hook(data):
        if edit:
            edit(data)
        return message

    callback = CallHooks()
    setattr(callback, stage, hook)
    return callback


async def refused(body, path=CHAT, callback=None, **gate):
    """Have a gate refuse a call; only beside a moderation hook may the app have been called."""
    return await request_to(path, body).to(LLMGate(Upstream(), callbacks=[callback or refusing()], **gate))


def head(response, prefix):
    """Take the id and the time out of each part of an answer, which must have the same ones."""
    parts = response if isinstance(response, list) else [response]
    ids, times = {part.pop("id") for part in parts}, {part.pop("created") for part in parts}
    assert len(ids) == len(times) == 1
    assert ids.pop().startswith(prefix)
    assert times.pop() > 1_700_000_000
    return response


def completion(count=1, model="gpt-4o-mini"):
    choice = {
        "message": {"role": "assistant", "content": MESSAGE, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": index, **choice} for index in range(count)],
        "usage": NO_USAGE,
        "system_fingerprint": None,
    }


def completion_chunks(count=1, model="gpt-4o-mini", *, usage=False):
    common = {"object": "chat.completion.chunk", "model": model, "system_fingerprint": None}
    more = {"usage": None} if usage else {}
    deltas = [({"role": "assistant", "content": "", "refusal": None}, None), ({"content": MESSAGE}, None), ({}, "stop")]
    chunks = [
        {**common, "choices": [{"index": i, "delta": delta, "logprobs": None, "finish_reason": finish}], **more}
        for delta, finish in deltas
        for i in range(count)
    ]
    return chunks + ([{**common, "choices": [], "usage": NO_USAGE}] if usage else [])


def text_choice(index):
    return {"text": MESSAGE, "index": index, "logprobs": None, "finish_reason": "stop"}


def text_completion(count=1, model="m"):
    choices = [text_choice(index) for index in range(count)]
    return {"object": "text_completion", "model": model, "choices": choices, "usage": NO_USAGE}


def text_chunks(count=1, model="m", *, usage=False):
    common = {"object": "text_completion", "model": model}
    more = {"usage": None} if usage else {}
    chunks = [{**common, "choices": [text_choice(index)], **more} for index in range(count)]
    return chunks + ([{**common, "choices": [], "usage": NO_USAGE}] if usage else [])


def text_body(**fields):
    return orjson.dumps({"model": "m", "prompt": "Hi", **fields})


@stages
@pytest.mark.parametrize(("fields", "count"), [({}, 1), ({"n": 1}, 1), ({"n": 3}, 3), ({"n": None, "stream": None}, 1)])
async def test_a_chat_is_refused_by_a_chat_completion(stage, fields, count):
    response = await refused(chat(**fields), callback=refusing(stage))
    assert response.status == 200
    assert response.header("x-request-id").startswith("req_")
    assert head(response.json(), "chatcmpl-") == completion(count)


@stages
@pytest.mark.parametrize("usage", [False, True], ids=["", "with usage"])
@pytest.mark.parametrize(("fields", "count"), [({}, 1), ({"n": 3}, 3)])
async def test_a_streamed_chat_is_refused_by_its_chunks(stage, fields, count, usage):
    """Role, text and finish, each for choice 0 before choice 1: the sequence every official client can read."""
    options = {"stream_options": {"include_usage": True}} if usage else {}
    response = await refused(chat(stream=True, **options, **fields), callback=refusing(stage))
    assert response.status == 200
    assert response.header("cache-control") == "no-cache"
    assert response.header("x-accel-buffering") == "no"
    assert response.header("content-length") is None
    assert response.header("x-request-id").startswith("req_")
    assert head(response.chunks(), "chatcmpl-") == completion_chunks(count, usage=usage)


PROMPTS = [
    ("one", {}, 1),
    ("n", {"n": 2}, 2),
    ("two prompts", {"prompt": ["a", "b"]}, 2),
    ("n for each", {"prompt": ["a", "b"], "n": 2}, 4),
    ("tokens", {"prompt": [1, 2, 3]}, 1),
    ("two of tokens", {"prompt": [[1, 2], [3]]}, 2),
    ("none", {"prompt": None}, 1),
]


@stages
@pytest.mark.parametrize(("fields", "count"), [row[1:] for row in PROMPTS], ids=[row[0] for row in PROMPTS])
async def test_every_prompt_is_refused_n_times(stage, fields, count):
    response = await refused(text_body(**fields), TEXT, refusing(stage))
    assert response.status == 200
    assert head(response.json(), "cmpl-") == text_completion(count)


@stages
@pytest.mark.parametrize("usage", [False, True], ids=["", "with usage"])
@pytest.mark.parametrize(("fields", "count"), [row[1:] for row in PROMPTS], ids=[row[0] for row in PROMPTS])
async def test_every_prompt_of_a_stream_is_refused_n_times(stage, fields, count, usage):
    options = {"stream_options": {"include_usage": True}} if usage else {}
    response = await refused(text_body(stream=True, **options, **fields), TEXT, refusing(stage))
    assert head(response.chunks(), "cmpl-") == text_chunks(count, usage=usage)


@calm
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 3), st.booleans())
def test_any_message_arrives_word_for_word(message, n, usage):
    data = {"model": "m", "n": n, "stream_options": {"include_usage": usage}}
    for shape in (chat_shape, text_shape):
        whole = orjson.loads(orjson.dumps(shape.rejection(data, message, id="1", created=1)))
        said = [choice["message"]["content"] if shape is chat_shape else choice["text"] for choice in whole["choices"]]
        assert said == [message] * n
        streamed = dict.fromkeys(range(n), "")
        for chunk in shape.rejection_chunks(data, message, id="1", created=1):
            for choice in orjson.loads(orjson.dumps(chunk))["choices"]:
                streamed[choice["index"]] += choice.get("text", choice.get("delta", {}).get("content")) or ""
        assert list(streamed.values()) == [message] * n


@pytest.mark.parametrize("message", ["", " ", "x" * 100_000])
async def test_a_message_may_be_empty_or_long(message):
    response = await refused(chat(), callback=refusing(message=message))
    assert response.json()["choices"][0]["message"]["content"] == message


def changes_everything(data):
    data.update(model="changed", stream=not data.get("stream"), n=7, stream_options={"include_usage": True})
    data["messages"] = data["prompt"] = ["changed"] * 5
    data["proxy_server_request"]["body"].clear()


@stages
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_answer_has_the_form_the_client_asked_for_whatever_a_hook_changed(stage, stream):
    """Its model, its choices, streamed or not: JSON in answer to a stream would be silent loss for every client."""
    callback = refusing(stage, edit=changes_everything)
    response = await refused(chat(stream=stream), callback=callback)
    answered = head(response.chunks() if stream else response.json(), "chatcmpl-")
    assert answered == (completion_chunks() if stream else completion())
    response = await refused(text_body(stream=stream, prompt=["a", "b"]), TEXT, callback)
    answered = head(response.chunks() if stream else response.json(), "cmpl-")
    assert answered == (text_chunks(2) if stream else text_completion(2))


async def test_a_chat_without_a_model_is_refused_all_the_same():
    assert head((await refused(b"{}")).json(), "chatcmpl-") == completion(model="")


async def test_calls_are_refused_under_ids_of_their_own():
    gate = LLMGate(Upstream(), callbacks=[refusing()])
    ids = [(await Request(chat()).to(gate)).json()["id"] for _ in range(3)]
    assert len(set(ids)) == 3


GATED = [row for row in ENDPOINTS if row.inspected and row.error_body is error_body]

WORDLESS = [
    ("/v1/embeddings", {"input": "Hi"}),
    ("/v1/moderations", {"input": "Hi"}),
    ("/v1/images/generations", {"prompt": "Hi"}),
    ("/v1/images/generations", {"prompt": "Hi", "stream": True}),
    ("/v1/responses/input_tokens", {"input": "Hi"}),
    ("/v1/responses/compact", {"input": "Hi"}),
    ("/v1/chat/completions/batch", {"messages": [[{"role": "user", "content": "Hi"}]]}),
    ("/v1/audio/speech", {"input": "Hi", "voice": "alloy"}),
    ("/v1/realtime/client_secrets", {"session": {"type": "realtime", "instructions": "Hi"}}),
    ("/v1/realtime/sessions", {"instructions": "Hi"}),
    ("/v1/rerank", {"query": "Hi", "documents": ["a"]}),
    ("/v1/conversations", {"items": []}),
    ("/v1/conversations/{}/items", {"items": []}),
    ("/v1/assistants", {"instructions": "Hi"}),
    ("/v1/threads", {"messages": []}),
    ("/v1/threads/runs", {"assistant_id": "asst_1"}),
    ("/v1/threads/{}/runs", {"assistant_id": "asst_1"}),
    ("/v1/threads/{}/messages", {"content": "Hi"}),
    ("/v1/threads/{}/runs/{}/submit_tool_outputs", {"tool_outputs": []}),
    ("/v1/vector_stores/{}/search", {"query": "Hi"}),
    ("/v1/images/edits", {"prompt": "Hi", "stream": True}),
    ("/v1/images/variations", {}),
    ("/v1/audio/transcriptions", {"stream": True}),
    ("/v1/audio/transcriptions", {"response_format": "text"}),
    ("/v1/audio/translations", {"response_format": "srt"}),
    ("/v1/files", {"purpose": "assistants"}),
    ("/v1/uploads", {"purpose": "assistants"}),
    ("/v1/uploads/{}/parts", {}),
    ("/v1/uploads/{}/complete", {}),
]


@stages
@pytest.mark.parametrize(("path", "fields"), WORDLESS, ids=[path for path, _ in WORDLESS])
async def test_every_other_endpoint_is_refused_by_a_400_that_says_the_message(stage, path, fields):
    response = await refused(orjson.dumps({"model": "m", **fields}), path.replace("{}", "id_1"), refusing(stage))
    assert response.status == 400
    assert response.error() == {
        "message": MESSAGE,
        "type": "invalid_request_error",
        "param": None,
        "code": "content_policy_violation",
    }


def test_no_gated_endpoint_is_left_out():
    """But for Anthropic's, which have tests of their own."""
    assert {row.suffix for row in GATED if row.call_type != "batches"} == {
        "/chat/completions",
        "/completions",
        "/responses",
        *(path.removeprefix("/v1") for path, _ in WORDLESS),
    }


async def test_a_refused_call_passes_no_later_hook_and_reaches_no_app():
    class Later(CallHooks):
        def __init__(self):
            self.ran = []

        async def async_pre_call_hook(self, data):
            self.ran.append("pre")

        async def async_moderation_hook(self, data):
            self.ran.append("moderation")

        async def async_post_call_success_hook(self, data):
            self.ran.append("success")

    upstream, later = Upstream(), Later()
    await Request(chat()).to(LLMGate(upstream, callbacks=[refusing(), later]))
    assert (upstream.calls, later.ran) == ([], [])
    await Request(chat()).to(LLMGate(upstream, callbacks=[later]))
    assert (len(upstream.calls), later.ran) == (1, ["pre", "moderation", "success"])


# A batch is refused before moderation, unless its file was looked into (`test_batches`).
INSPECTED = sorted({f"/v1{row.suffix}" for row in GATED if row.call_type != "batches"})


@stages
@pytest.mark.parametrize("path", INSPECTED)
async def test_one_envelope_for_the_same_exception_on_every_endpoint(stage, path):
    exc = HTTPException(429, {"error": "slow down", "extra": 1}, {"Retry-After": "7"})
    for stream in (False, True):
        response = await refused(orjson.dumps({"model": "m", "stream": stream}), path, refusing(stage, exc))
        assert response.status == 429
        assert response.header("retry-after") == "7"
        assert response.error() == {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "429"}


class Reporter(CallHooks):
    """A failure hook that notes what it is told and returns or raises something."""

    def __init__(self, returns=None, raises=None):
        self.told = []
        self.returns = returns
        self.raises = raises

    async def async_post_call_failure_hook(self, request_data, original_exception, user_api_key_dict, traceback_str):
        self.told.append((request_data, original_exception, user_api_key_dict, traceback_str))
        if self.raises:
            raise self.raises
        return self.returns


def failing(stage, exc):
    async def hook(data):
        raise exc

    callback = CallHooks()
    setattr(callback, stage, hook)
    return callback


FORBIDDEN = HTTPException(403, "forbidden")

# A way for a call to fail: the gate's settings, the app's answer, and the status and message the client reads.
WAYS = {
    "user": ({"enforce_user_param": True}, answer(b"{}"), 400, "Missing required parameter: 'user'"),
    "pre-call raises": ({"callbacks": [failing("async_pre_call_hook", FORBIDDEN)]}, answer(b"{}"), 403, "forbidden"),
    "pre-call crashes": (
        {"callbacks": [failing("async_pre_call_hook", ValueError("secret"))]},
        answer(b"{}"),
        500,
        "Internal server error",
    ),
    "moderation raises": (
        {"callbacks": [failing("async_moderation_hook", FORBIDDEN)]},
        answer(b"{}"),
        403,
        "forbidden",
    ),
    "success raises": (
        {"callbacks": [failing("async_post_call_success_hook", FORBIDDEN)]},
        answer(b"{}"),
        403,
        "forbidden",
    ),
    "not JSON": (
        {"callbacks": [failing("async_post_call_success_hook", FORBIDDEN)]},
        answer(b"["),
        502,
        "The app's response can't be looked at",
    ),
    "too large": (
        {"callbacks": [failing("async_post_call_success_hook", FORBIDDEN)], "max_response_bytes": 10},
        answer(b"x" * 11),
        502,
        "The app's response is too large to look at",
    ),
    "key": ({"master_key": "sk-1"}, answer(b"{}"), 401, "No API key was passed in"),
    "upstream": ({}, answer(b'{"error":{"message":"too long","code":"c"}}', 400), 400, "too long"),
}

ways = pytest.mark.parametrize("way", WAYS)


async def failed(way, *reporters):
    gate_settings, messages, status, message = WAYS[way]
    callbacks = [*gate_settings.get("callbacks", []), *reporters]
    gate = LLMGate(Upstream(messages), **{**gate_settings, "callbacks": callbacks})
    return await Request(chat()).to(gate), status, message


@ways
async def test_failure_hooks_learn_of_every_failure_once(way):
    reporter = Reporter()
    response, status, message = await failed(way, reporter)
    assert response.status == status
    assert orjson.loads(response.body)["error"]["message"] == message
    ((request_data, exc, caller, trace),) = reporter.told
    assert isinstance(exc, Exception)
    assert type(exc).__name__ in trace
    assert caller.metadata == {}
    assert way == "key" or request_data["model"] == "gpt-4o-mini"


@ways
async def test_the_first_replacement_wins_and_all_failure_hooks_run(way):
    reporters = [
        Reporter(returns=ValueError("no status")),
        Reporter(returns=HTTPException(418, "returned", {"x-tea": "1"})),
        Reporter(raises=HTTPException(410, "raised")),
        Reporter(),
    ]
    response, _, _ = await failed(way, *reporters)
    assert (response.status, response.error()["message"]) == (418, "returned")
    assert response.header("x-tea") == "1"
    assert [len(reporter.told) for reporter in reporters] == [1, 1, 1, 1]
    assert len({id(reporter.told[0][1]) for reporter in reporters}) == 1


@ways
async def test_a_replacement_may_be_raised(way):
    response, _, _ = await failed(way, Reporter(raises=HTTPException(410, "raised")))
    assert (response.status, response.error()["message"]) == (410, "raised")


@ways
@pytest.mark.parametrize("on_hook_error", ["reject", "allow"])
async def test_a_failure_hook_that_crashes_changes_nothing_and_is_logged(way, on_hook_error, caplog):
    crashing, last = Reporter(raises=RuntimeError("of the hook")), Reporter()
    crashing.on_hook_error = on_hook_error
    response, status, message = await failed(way, crashing, last)
    assert response.status == status
    assert orjson.loads(response.body)["error"]["message"] == message
    assert len(last.told) == 1
    assert "Reporter.async_post_call_failure_hook failed" in caplog.text
    assert "RuntimeError: of the hook" in caplog.text


@ways
@pytest.mark.parametrize("value", ["text", {"status_code": 418}, 418, False, ValueError("no status")], ids=repr)
async def test_what_replaces_no_error_is_passed_over(way, value):
    response, status, _ = await failed(way, Reporter(returns=value))
    assert response.status == status


async def test_a_message_can_be_replaced_by_an_error():
    reporter = Reporter(returns=HTTPException(451, "no message"))
    gate = LLMGate(Upstream(), callbacks=[refusing(), reporter])
    response = await Request(chat(stream=True)).to(gate)
    assert (response.status, response.error()["message"]) == (451, "no message")
    ((_, exc, _, _),) = reporter.told
    assert exc.message == MESSAGE


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_upstreams_error_goes_out_byte_for_byte_when_no_hook_replaces_it(status):
    body = b'{\n  "error": {"message": "m", "type": "t", "param": "p", "code": "c"}\n}\n'
    headers = [("x-request-id", "req_up"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("retry-after", "1")]
    messages = answer(body, status, headers=headers)
    reporter = Reporter()
    response = await Request(chat()).to(LLMGate(Upstream(messages), callbacks=[reporter]))
    assert response.sent == messages
    ((_, exc, _, _),) = reporter.told
    assert (exc.status_code, exc.message, exc.type, exc.param, exc.code) == (status, "m", "t", "p", "c")
    assert exc.headers["retry-after"] == "1"


async def test_a_failure_hook_may_return_the_error_it_was_told():
    class Same(CallHooks):
        async def async_post_call_failure_hook(self, original_exception):
            return original_exception

    messages = answer(b'{"error":{"message":"m","code":7}}', 429, headers=[("retry-after", "1")])
    response = await Request(chat()).to(LLMGate(Upstream(messages), callbacks=[Same()]))
    assert response.status == 429
    assert response.header("retry-after") == "1"
    assert response.body == b'{"error":{"message":"m","code":7}}'


async def test_an_app_that_raises_is_reported_and_raises_on():
    """The host has its own way with exceptions; the hooks only learn of it."""

    async def app(scope, receive, send):
        raise RuntimeError("boom")

    reporter = Reporter()
    request = Request(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await request.to(LLMGate(app, callbacks=[reporter]))
    assert request.sent == []
    assert [str(exc) for _, exc, _, _ in reporter.told] == ["boom"]


async def test_a_replacement_is_sent_before_an_apps_exception_goes_on():
    async def app(scope, receive, send):
        raise RuntimeError("boom")

    request = Request(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await request.to(LLMGate(app, callbacks=[Reporter(returns=HTTPException(418, "teapot"))]))
    start, body = request.sent
    assert start["status"] == 418
    assert orjson.loads(body["body"])["error"]["message"] == "teapot"


async def test_after_the_first_byte_nothing_is_replaced():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        raise RuntimeError("boom")

    reporter = Reporter(returns=HTTPException(418, "teapot"))
    request = Request(chat(stream=True))
    with pytest.raises(RuntimeError, match="boom"):
        await request.to(LLMGate(app, callbacks=[reporter]))
    assert [message["type"] for message in request.sent] == ["http.response.start", "http.response.body"]
    assert len(reporter.told) == 1


async def test_a_call_that_succeeds_has_no_failure():
    reporter = Reporter(returns=HTTPException(418, "teapot"))
    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[reporter]))
    assert (response.status, reporter.told) == (200, [])
