"""Guardrails that only define `apply_guardrail`: on the texts of every shape, at their events, in every signature."""

from __future__ import annotations

import math
import sys
from typing import Any

import orjson
import pytest

from asgi_llm_gate import LLMGate, window
from asgi_llm_gate.guardrails import as_guard
from asgi_llm_gate.hooks import overrides
from asgi_llm_gate.litellm_guardrail import (
    CustomGuardrail,
    CustomLogger,
    GuardrailEventHooks,
    add_guardrail_to_applied_guardrails_header,
    log_guardrail_information,
    requested,
)
from asgi_llm_gate.loading import LoadError, as_callback
from tests.harness import CHAT, Request, Upstream, answer, chat

SAID = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "say no"}, "finish_reason": "stop"}]}


class Guard(CustomGuardrail):
    """Notes what it is given, and puts stars in the place of "no"."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen: list[Any] = []

    async def apply_guardrail(self, inputs, request_data, input_type, logging_obj=None):
        self.seen.append((input_type, list(inputs["texts"])))
        return {"texts": [text.replace("no", "**") for text in inputs["texts"]]}


def stream_of(*pieces: str, finish: str | None = "stop") -> Upstream:
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    body = b"".join(b"data: %s\n\n" % orjson.dumps(chunk) for chunk in chunks)
    return Upstream(answer(body + b"data: [DONE]\n\n", content_type="text/event-stream; charset=utf-8"))


async def asked(callback: object, body: bytes, app: Any = None, path: str = CHAT):
    app = app or Upstream(answer(orjson.dumps(SAID)))
    return await Request(body, path=path).to(LLMGate(app, callbacks=[callback])), app


def user(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.anyio
async def test_its_texts_are_put_back_in_the_request_and_in_the_answer():
    guard = Guard()
    response, app = await asked(guard, chat(messages=user("or no")))
    assert app.data["messages"] == user("or **")
    assert response.json()["choices"][0]["message"]["content"] == "say **"
    assert guard.seen == [("request", ["or no"]), ("response", ["say no"])]


@pytest.mark.anyio
async def test_an_answer_it_leaves_alone_goes_out_byte_for_byte():
    raw = b'{ "choices": [{"message": {"content": "yes"}}], "extra": 1.0 }'
    response, _ = await asked(Guard(), chat(), Upstream(answer(raw)))
    assert response.body == raw


@pytest.mark.anyio
async def test_a_stream_is_held_until_its_text_is_whole():
    guard = Guard()
    response, _ = await asked(guard, chat(stream=True), stream_of("say n", "o", " more"))
    chunks = response.chunks()
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "say ** more"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert guard.seen == [("request", ["Hi"]), ("response", ["say no more"])]


@pytest.mark.anyio
async def test_what_comes_without_a_finish_is_looked_at_too():
    response, _ = await asked(Guard(), chat(stream=True), stream_of("say n", "o", finish=None))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in response.chunks()][-1] == "say **"


@pytest.mark.anyio
async def test_a_text_hook_before_and_after_it_have_their_say():
    class Text:
        def __init__(self, old, new, window):
            self.old, self.new, self.streaming_window = old, new, window

        def async_post_call_streaming_hook(self, response):
            return response.replace(self.old, self.new)

    app = stream_of("say ma", "ybe")
    callbacks = [Text("maybe", "no", 8), Guard(), Text("**", "##", 0)]
    response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=callbacks))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in response.chunks()) == "say ##"


@pytest.mark.anyio
async def test_a_text_too_long_to_hold_ends_the_stream(monkeypatch):
    monkeypatch.setattr(window, "MAX_WHOLE", 5)
    response, _ = await asked(Guard(), chat(stream=True), stream_of("say", " no", " more"))
    assert (response.status, response.error()["code"]) == (502, "response_too_large")


@pytest.mark.anyio
async def test_a_guard_asked_for_no_stream_lets_it_through():
    response, _ = await asked(Guard(event_hook="pre_call", default_on=True), chat(stream=True), stream_of("n", "o"))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in response.chunks()] == ["n", "o", None]


EVENTS = {
    "none": ({}, ["request", "response"]),
    "before": ({"event_hook": "pre_call", "default_on": True}, ["request"]),
    "after": ({"event_hook": GuardrailEventHooks.post_call, "default_on": True}, ["response"]),
    "both": ({"event_hook": ["pre_call", GuardrailEventHooks.post_call], "default_on": True}, ["request", "response"]),
    "beside": ({"event_hook": "during_call", "default_on": True}, ["request"]),
    "not asked for": ({"event_hook": "pre_call", "guardrail_name": "other"}, []),
    "asked for": ({"event_hook": "pre_call", "guardrail_name": "g"}, ["request"]),
    "asked for, after": ({"event_hook": "post_call", "guardrail_name": "g"}, ["response"]),
    "asked for beside": ({"event_hook": "during_call", "guardrail_name": "g"}, ["request"]),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("options", "expected"), EVENTS.values(), ids=list(EVENTS))
async def test_it_runs_at_its_events(options, expected):
    guard = Guard(**options)
    _, app = await asked(guard, chat(messages=user("no"), guardrails=["g"]))
    assert [input_type for input_type, _ in guard.seen] == expected
    changed = "request" in expected and options.get("event_hook") != "during_call"
    assert app.data["messages"] == user("**" if changed else "no")


@pytest.mark.parametrize(
    ("event_hook", "event", "expected"),
    [
        (None, "pre_call", True),
        ("pre_call", GuardrailEventHooks.pre_call, True),
        (["post_call"], GuardrailEventHooks.pre_call, False),
    ],
)
def test_a_handler_may_ask_itself_whether_it_is_to_run(event_hook, event, expected):
    guard = Guard(event_hook=event_hook, default_on=True)
    assert guard.should_run_guardrail(data={}, event_type=event) is expected


@pytest.mark.anyio
async def test_a_stream_of_a_call_that_did_not_ask_for_it_is_left_alone():
    guard = Guard(event_hook="post_call", guardrail_name="g")
    response, _ = await asked(guard, chat(stream=True), stream_of("say", " no"))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in response.chunks()] == ["say", " no", None]
    assert guard.seen == []


@pytest.mark.anyio
async def test_a_guard_that_can_not_say_whether_it_runs_is_a_failure_in_a_stream_too():
    class Confused(Guard):
        def should_run_guardrail(self, data, event_type):
            if event_type == "post_call":
                raise RuntimeError
            return True

    response, _ = await asked(Confused(), chat(stream=True), stream_of("say", " no"))
    assert (response.status, response.error()["code"]) == (500, "internal_error")


@pytest.mark.anyio
async def test_the_names_of_guardrails_are_for_the_gate_and_not_for_the_app():
    guard = Guard(event_hook="pre_call", guardrail_name="g")
    _, app = await asked(guard, chat(messages=user("no"), guardrails=[{"g": {"extra_body": {}}}]))
    assert "guardrails" not in app.data
    assert app.data["messages"] == user("**")


@pytest.mark.anyio
async def test_beside_the_call_it_refuses():
    class Refuses(CustomGuardrail):
        async def apply_guardrail(self, inputs, request_data, input_type):
            return ValueError() if inputs["texts"] == ["yes"] else PermissionDenied()

    class PermissionDenied(Exception):
        status_code = 403
        detail = "Not here"

    response, _ = await asked(Refuses(event_hook="during_call", default_on=True), chat(messages=user("no")))
    assert (response.status, response.error()["message"]) == (403, "Not here")


@pytest.mark.anyio
async def test_a_guard_that_changes_its_mind_about_a_stream_leaves_its_text():
    class Fickle(Guard):
        def should_run_guardrail(self, data, event_type):
            self.seen.append(event_type)
            return len(self.seen) < 3

    guard = Fickle(event_hook=["post_call"], default_on=True)
    guard.seen.append("asked about the stream once")
    response, _ = await asked(guard, chat(stream=True), stream_of("say", " no"))
    assert "say no" in response.body.decode()


class Texts:
    """No base class, a list of texts in and a pair out."""

    def apply_guardrail(self, texts, request_data, input_type, images=None):
        return [text.upper() for text in texts], images


class Text:
    def apply_guardrail(self, text, language=None, entities=None, request_data=None):
        return text.upper()


class Inputs:
    async def apply_guardrail(self, inputs, **more):
        assert set(more) == {"request_data", "input_type", "logging_obj", "images", "texts", "text"} & set(more)
        assert inputs["model"] == "gpt-4o-mini"
        inputs["texts"] = [text.upper() for text in inputs["texts"]]
        return inputs


class Silent:
    async def apply_guardrail(self, text):
        return None


class WithoutTexts:
    async def apply_guardrail(self, inputs):
        return {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "expected"), [(Texts, "NO"), (Text, "NO"), (Inputs, "NO"), (Silent, "no"), (WithoutTexts, "no")]
)
async def test_every_signature_is_served(kind, expected):
    response, app = await asked(kind, chat(messages=user("no")))
    assert response.status == 200
    assert app.data["messages"] == user(expected)


WRONG = [{"texts": []}, {"texts": [1]}, ["a", "b"], 7, {"texts": "no"}]


@pytest.mark.anyio
@pytest.mark.parametrize("returned", WRONG, ids=repr)
async def test_what_does_not_fit_is_a_failure_of_the_hook(returned, caplog):
    class Wrong(CustomGuardrail):
        async def apply_guardrail(self, inputs, request_data, input_type):
            return returned

    response, app = await asked(Wrong(), chat())
    assert (response.status, response.error()["code"]) == (500, "internal_error")
    assert not app.calls
    assert "Wrong.async_pre_call_hook failed" in caplog.text


class TakesNone:
    def apply_guardrail(self, request_data): ...


class TakesMore:
    def apply_guardrail(self, inputs, secret): ...


class NativeTakesMore(CustomGuardrail):
    def async_pre_call_hook(self, data, secret): ...


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (TakesNone, "TakesNone.apply_guardrail takes none of inputs, texts, text"),
        (TakesMore, "TakesMore.apply_guardrail needs secret"),
        (NativeTakesMore, "NativeTakesMore.async_pre_call_hook needs secret"),
        (CustomGuardrail, "CustomGuardrail has no hook"),
    ],
)
def test_what_can_not_be_called_is_refused_at_the_start(kind, why):
    with pytest.raises(LoadError, match=why):
        as_callback(kind())


@pytest.mark.anyio
async def test_a_call_without_text_is_not_asked_about():
    guard = Guard()
    image = [{"type": "image_url", "image_url": {"url": "data:no"}}]
    await asked(guard, chat(messages=user(image)), Upstream(answer(b'{"object": "none"}')))
    assert guard.seen == []


class Native(CustomGuardrail):
    """Hooks of its own at every event, one of them none of a guardrail's."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen: list[str] = []

    async def async_pre_call_hook(self, data):
        self.seen.append("before")

    def async_moderation_hook(self, data):
        self.seen.append("beside")

    async def async_post_call_success_hook(self, response):
        self.seen.append("after")

    async def async_post_call_streaming_hook(self, response):
        self.seen.append("piece")

    async def async_post_call_streaming_iterator_hook(self, response):
        self.seen.append("chunks")
        async for chunk in response:
            yield chunk

    async def async_log_success_event(self, kwargs):
        self.seen.append("log")


NATIVE = {
    "none": ({}, {"before", "beside", "after", "log"}, {"before", "beside", "piece", "chunks", "log"}),
    "before": ({"event_hook": "pre_call", "default_on": True}, {"before", "log"}, {"before", "log"}),
    "after": ({"event_hook": "post_call", "default_on": True}, {"after", "log"}, {"piece", "chunks", "log"}),
    "not asked for": ({"event_hook": ["pre_call", "post_call"], "guardrail_name": "other"}, {"log"}, {"log"}),
    "asked for": ({"event_hook": ["pre_call"], "guardrail_name": "g"}, {"before", "log"}, {"before", "log"}),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("options", "whole", "streamed"), NATIVE.values(), ids=list(NATIVE))
async def test_a_guardrails_own_hooks_run_at_its_events(options, whole, streamed):
    for stream, expected in ((False, whole), (True, streamed)):
        native = Native(**options)
        app = stream_of("say no") if stream else None
        response, _ = await asked(native, chat(stream=stream, guardrails=["g"]), app)
        assert response.status == 200
        assert set(native.seen) == expected


@pytest.mark.anyio
async def test_where_tags_decide_each_call_is_asked_about():
    class Mode:
        """Of LiteLLM's enterprise edition: events by tag."""

    class Tagged(Guard):
        def should_run_guardrail(self, data, event_type):
            return data["user"] == "tagged" and event_type.value == "pre_call"

    guard = Tagged(event_hook=Mode())
    for name in ("other", "tagged"):
        await asked(guard, chat(user=name))
    assert guard.seen == [("request", ["Hi"])]


def test_a_guard_is_made_once_and_keeps_its_name():
    guard: Any = as_guard(Guard(hook_timeout=3))
    assert as_guard(guard) is guard
    assert type(guard).__name__ == "Guard"
    assert (guard.hook_timeout, guard.streaming_window) == (3, math.inf)
    assert not overrides(guard, "async_post_call_streaming_iterator_hook")
    plain = CustomLogger()
    assert as_guard(plain) is plain


def test_what_is_imported_beside_the_base_class_works():
    data: dict[str, Any] = {}
    for name in ("a", "b", "a", None):
        add_guardrail_to_applied_guardrails_header(request_data=data, guardrail_name=name)
    assert data == {"metadata": {"applied_guardrails": ["a", "b"]}}
    assert log_guardrail_information(sys.exit) is sys.exit


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ({}, set()),
        ({"guardrails": "a"}, set()),
        ({"guardrails": ["a", {"b": {}}, 7]}, {"a", "b"}),
        ({"metadata": {"guardrails": ["a"]}, "litellm_metadata": {"guardrails": ["b"]}}, {"a", "b"}),
        ({"metadata": "a"}, set()),
    ],
)
def test_the_guardrails_of_a_request_are_found(data, names):
    assert requested(data) == names


@pytest.mark.anyio
async def test_the_base_classs_own_apply_guardrail_returns_what_it_is_given():
    assert await CustomGuardrail().apply_guardrail({"texts": ["a"]}, {}, "request") == {"texts": ["a"]}
