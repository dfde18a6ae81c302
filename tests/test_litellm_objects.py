"""LiteLLM's own objects in the hands of hooks, with a stand-in for LiteLLM that has its classes' habits."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import orjson
import pydantic
import pytest

from asgi_llm_gate import LLMGate
from asgi_llm_gate.litellm_objects import Objects, record_of
from asgi_llm_gate.record import Record, as_record
from tests.harness import Request, Upstream, answer, chat

SAID: dict[str, Any] = {
    "id": "chatcmpl-1",
    "vendor": {"region": "north"},
    "choices": [
        {"index": 0, "message": {"content": "one", "vendor": 1}, "logprobs": None},
        {"index": 1, "message": {"content": "two"}},
    ],
    "usage": {"total_tokens": 7, "details": {"cached": 0}},
}


class Message(pydantic.BaseModel):
    content: str | None = None
    role: str = "assistant"
    tool_calls: list[Any] | None = None


class Choices(pydantic.BaseModel):
    index: int = 0
    message: Message = Message()
    finish_reason: str = "stop"


class ModelResponse(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    id: str = "made up"
    created: int = 1
    choices: list[Choices] = []


class Delta(pydantic.BaseModel):
    content: str | None = None
    role: str | None = None


class StreamingChoices(pydantic.BaseModel):
    index: int = 0
    delta: Delta = Delta()
    finish_reason: str | None = None


class ModelResponseStream(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    id: str = "made up"
    choices: list[StreamingChoices]
    provider_specific_fields: Any = None


@pytest.fixture(autouse=True)
def litellm(monkeypatch):
    """A module of that name, as if LiteLLM were installed and imported."""
    module = ModuleType("litellm")
    for kind in (ModelResponse, ModelResponseStream):
        monkeypatch.setattr(kind, "__module__", "litellm.types.utils")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "litellm", module)
    return module


class CustomLogger:
    """LiteLLM's base class."""


CustomLogger.__module__ = "litellm.integrations.custom_logger"


class Handler(CustomLogger):
    def __init__(self, change=None):
        self.change = change or (lambda response: None)
        self.given: list[Any] = []

    async def async_post_call_success_hook(self, response):
        self.given.append(response)
        return self.change(response)


async def answered(*callbacks, said=SAID):
    app = Upstream(answer(json.dumps(said).encode()))
    return (await Request(chat()).to(LLMGate(app, callbacks=callbacks))).body


def set_content(response):
    response.choices[0].message.content = "new"


def set_extra(response):
    response.vendor["region"] = "south"
    response.added = True


def remove_choice(response):
    del response.choices[0]


def remove_extra(response):
    del response.vendor


def replace_message(response):
    response.choices[1].message = Message(content="new", role="assistant")


def add_choice(response):
    response.choices.append(Choices(index=2))


def return_copy(response):
    copy = response.model_copy(deep=True)
    copy.choices[0].message.content = "new"
    return copy


def changed(**changes: Any) -> dict[str, Any]:
    said = json.loads(json.dumps(SAID))
    for path, value in changes.items():
        *way, last = path.split("__")
        holder: Any = said
        for name in way:
            holder = holder[int(name) if name.isdecimal() else name]
        holder[last] = value
    return said


NEW_CHOICE = {
    "index": 2,
    "message": {"content": None, "role": "assistant", "tool_calls": None},
    "finish_reason": "stop",
}
CHANGES = {
    "a text": (set_content, changed(choices__0__message__content="new")),
    "fields of its own": (set_extra, {**changed(vendor__region="south"), "added": True}),
    "a choice less": (remove_choice, changed(choices=[SAID["choices"][1]])),
    "a field less": (remove_extra, {name: value for name, value in SAID.items() if name != "vendor"}),
    "another message": (replace_message, changed(choices__1__message__content="new")),
    "a choice more": (add_choice, changed(choices=[*SAID["choices"], NEW_CHOICE])),
    "a changed copy": (return_copy, changed(choices__0__message__content="new")),
    "another response": (lambda response: {"id": "other"}, {"id": "other"}),
    "an object of its own": (
        lambda response: ModelResponse(id="other"),
        {"id": "other", "created": 1, "choices": []},
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=list(CHANGES))
async def test_what_a_hook_changed_is_all_that_changes(change, expected):
    handler = Handler(change)
    assert json.loads(await answered(handler)) == expected
    assert isinstance(handler.given[0], ModelResponse)


@pytest.mark.anyio
async def test_a_response_that_no_hook_changed_keeps_its_bytes():
    assert await answered(Handler(), Handler(lambda response: response)) == json.dumps(SAID).encode()


@pytest.mark.anyio
async def test_each_callback_gets_what_it_knows():
    class Plain:
        def __init__(self):
            self.given: list[Any] = []

        async def async_post_call_success_hook(self, response):
            self.given.append(response)
            response.choices[0].message.content += "!"

    Plain.__module__ = "elsewhere"
    first, plain, last = Handler(set_content), Plain(), Handler()
    assert json.loads(await answered(first, plain, last)) == changed(choices__0__message__content="new!")
    assert [type(handler.given[0]) is ModelResponse for handler in (first, plain, last)] == [True, False, True]
    assert last.given[0].choices[0].message.content == "new!"


@pytest.mark.anyio
async def test_a_response_that_does_not_fit_litellms_class_is_given_as_it_is():
    handler = Handler()
    said = {"choices": "none"}
    assert json.loads(await answered(handler, said=said)) == said
    assert handler.given == [said]
    assert not isinstance(handler.given[0], pydantic.BaseModel)


@pytest.mark.anyio
async def test_other_shapes_are_given_as_they_are():
    handler = Handler()
    app = Upstream(answer(b'{"results": []}'))
    await Request(chat(input="hi"), path="/v1/moderations").to(LLMGate(app, callbacks=[handler]))
    assert handler.given == [{"results": []}]


@pytest.mark.anyio
async def test_log_and_headers_hooks_get_the_objects_too():
    class Logs(CustomLogger):
        def __init__(self):
            self.given: list[Any] = []

        def async_log_success_event(self, response_obj):
            self.given.append(response_obj)

        def async_post_call_response_headers_hook(self, response):
            self.given.append(response)

    logs = Logs()
    await answered(Handler(), logs)
    assert [type(given) for given in logs.given] == [ModelResponse, ModelResponse]


CHUNKS = [
    {"id": "1", "vendor": 1, "choices": [{"index": 0, "delta": {"content": "one"}, "logprobs": None}]},
    {"id": "1", "vendor": 1, "choices": [{"index": 0, "delta": {"content": "two"}}]},
    {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]


async def streamed(handler):
    events = [json.dumps(chunk).encode() for chunk in CHUNKS]
    body = b"".join(b": c\ndata: %s\n\n" % event for event in events) + b"data: [DONE]\n\n"
    app = Upstream(answer(body, content_type="text/event-stream"))
    response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=[handler]))
    return body, response.body


class Chunks(CustomLogger):
    def __init__(self, change):
        self.change = change
        self.kinds: set[type] = set()

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:
            self.kinds.add(type(chunk))
            for made in self.change(chunk):
                yield made


@pytest.mark.anyio
async def test_chunks_that_a_hook_leaves_alone_go_out_byte_for_byte():
    handler = Chunks(lambda chunk: [chunk])
    sent, received = await streamed(handler)
    assert received == sent
    assert handler.kinds == {ModelResponseStream}


@pytest.mark.anyio
async def test_a_chunk_that_a_hook_changed_has_no_other_fields_than_before():
    def upper(chunk):
        if chunk.choices[0].delta.content == "two":
            chunk.choices[0].delta.content = "TWO"
        return [chunk]

    sent, received = await streamed(Chunks(upper))
    expected = {"id": "1", "vendor": 1, "choices": [{"index": 0, "delta": {"content": "TWO"}}]}
    old = b"data: " + json.dumps(CHUNKS[1]).encode()
    assert received == sent.replace(old, b"data: " + orjson.dumps(expected))


@pytest.mark.anyio
async def test_a_hook_may_hold_chunks_back_and_give_them_twice():
    held: list[Any] = []

    def hold(chunk):
        held.append(chunk)
        return held if chunk.choices[0].finish_reason else []

    sent, received = await streamed(Chunks(hold))
    assert received == sent
    _, received = await streamed(Chunks(lambda chunk: [chunk, chunk]))
    assert received.count(b'"one"') == 2


def of_module(name: str, **values: Any) -> object:
    """An object of a class that stands in a module with some names."""
    module = ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module
    return type("Handler", (), {"__module__": name})()


def test_a_callback_needs_the_objects_if_its_file_imported_litellm(litellm):
    record = as_record(json.loads(json.dumps(SAID)), Record)
    names: list[dict[str, Any]] = [{"litellm": litellm}, {"Response": ModelResponse}, {"json": json, "x": 1}, {}]
    try:
        made = [Objects(of_module("handler_of_test", **values), "completion").whole(record) for values in names]
    finally:
        del sys.modules["handler_of_test"]
    assert [isinstance(value, ModelResponse) for value in made] == [True, True, False, False]
    assert Objects(type("Handler", (), {"__module__": "gone"})(), "completion").whole(record) is record


def test_nothing_is_made_where_litellm_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "litellm")
    record = Record(SAID)
    assert Objects(Handler(), "completion").whole(record) is record


def test_a_class_that_a_version_lacks_is_done_without(litellm):
    del litellm.ModelResponseStream
    record = Record(CHUNKS[0])
    assert Objects(Handler(), "completion").chunk(record) is record
    assert Objects(Handler(), "completion").whole(None) is None


def test_what_is_no_object_of_the_gates_is_read_as_it_is():
    assert record_of("text", Record) == "text"
    assert record_of(ModelResponse(id="x"), Record) == {"id": "x", "created": 1, "choices": []}
