"""Streams are rewritten event by event, the same however they are cut, and end in good form whatever happens."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import anyio
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection
from tests.harness import CHAT, Request, Response, Upstream

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

TEXT = "/v1/completions"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
DONE = b"[DONE]"
SECRET = "sk-secret-1234"


def chunk(delta=None, finish=None, index=0, **fields):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **fields}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def text_chunk(text="", finish=None, index=0):
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    return {"id": "t", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def wire(*events, end=b"\n\n"):
    return b"".join(b"data: " + (e if isinstance(e, bytes) else orjson.dumps(e)) + end for e in events)


def said(*pieces, finish="stop"):
    role = chunk({"role": "assistant", "content": ""})
    return wire(role, *(chunk({"content": piece}) for piece in pieces), chunk({}, finish), DONE)


def cut(body, places):
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[begin:end] for begin, end in itertools.pairwise(borders)]


def messages(pieces):
    return [
        START,
        *({"type": "http.response.body", "body": p, "more_body": True} for p in pieces),
        {"type": "http.response.body"},
    ]


async def streamed(body, *callbacks, pieces=None, path=CHAT, **keywords):
    """What the client gets of a stream, checked to be in ASGI's order and of whole events."""
    app = Upstream(messages(pieces or [body]))
    request = Request(b'{"model":"m","stream":true,"messages":[],"prompt":"p"}', path=path)
    response = await request.to(LLMGate(app, callbacks=callbacks, **keywords))
    for message in response.sent[1:]:
        assert not message.get("body") or message["body"].endswith((b"\n\n", b"\r\n\r\n", b"}")), message
    return response


def chunks_of(response):
    return [json.loads(line[6:]) for line in response.body.decode().split("\n") if line.startswith("data: {")]


def texts(response, key="content"):
    found: dict[int, str] = {}
    for got in chunks_of(response):
        for choice in got.get("choices", []):
            piece = choice["text"] if "text" in choice else choice["delta"].get(key) or ""
            found[choice["index"]] = found.get(choice["index"], "") + piece
    return found


class Texts(CallHooks):
    """A text hook of a function."""

    def __init__(self, function, window=0, channels=("text",)):
        self.function = function
        self.streaming_window = window
        self.streaming_channels = channels
        self.pieces = []

    async def async_post_call_streaming_hook(self, user_api_key_dict, response):
        self.pieces.append((str(response), response.channel, response.index))
        return self.function(response)


class Chunks(CallHooks):
    """An iterator hook of an async generator."""

    def __init__(self, generator):
        self.generator = generator

    def async_post_call_streaming_iterator_hook(self, response):
        return self.generator(response)


def upper():
    return Texts(lambda piece: piece.upper())


def mask(window=20):
    return Texts(lambda piece: piece.replace(SECRET, "*" * len(SECRET)), window)


def raises(exc):
    def function(_piece):
        raise exc

    return function


def after(count, exc):
    pieces = itertools.count(1)
    return Texts(lambda piece: raises(exc)(piece) if next(pieces) > count else None)


async def retitled(chunks):
    async for got in chunks:
        delta = got.choices[0].delta
        if delta.content:
            delta.content = delta.content.title()
        yield got


async def test_a_text_hook_is_given_each_piece_and_its_place():
    hook = Texts(lambda piece: None)
    body = wire(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({"content": ""}), chunk({}, "stop"), DONE
    )
    response = await streamed(body, hook)
    assert hook.pieces == [("a", "text", 0), ("b", "text", 1)]
    assert response.body == body


async def test_hooks_chain_and_an_empty_string_drops_a_piece():
    dropping = Texts(lambda piece: "" if piece == "b" else piece + "!")
    last = Texts(lambda piece: piece.upper())
    response = await streamed(said("a", "b", "c"), dropping, last)
    assert texts(response) == {0: "A!C!"}
    assert [piece for piece, *_ in last.pieces] == ["a!", "c!"]


async def test_what_no_hook_changed_keeps_its_bytes_and_what_one_changed_its_other_fields():
    kept = b': ping\n\nevent: x\nid: 3\ndata: {"choices": [ ],"usage":null}\n\n: OPENROUTER PROCESSING\r\n\r\n'
    body = kept + b'event: y\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: not json\n\n' + wire(DONE)
    response = await streamed(body, upper())
    changed = b'event: y\ndata: {"choices":[{"delta":{"content":"A"}}]}\n\n'
    assert response.body == kept + changed + b"data: not json\n\n" + wire(DONE)


async def test_log_probabilities_go_with_the_text_they_spell_out():
    logprobs = {"content": [{"token": "a"}]}
    body = wire(*(chunk({"content": piece}, logprobs=logprobs) for piece in ("a", "b")), DONE)
    response = await streamed(body, Texts(lambda piece: "x" if piece == "a" else None))
    assert [got["choices"][0]["logprobs"] for got in chunks_of(response)] == [None, logprobs]


CHANNELS = {
    "tool_calls": chunk({"tool_calls": [{"index": 1, "function": {"arguments": "abc"}}]}),
    "refusal": chunk({"refusal": "abc"}),
    "reasoning": chunk({"reasoning_content": "abc"}),
}


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("window", [0, 2, 9])
async def test_other_channels_are_seen_where_they_are_asked_for(channel, window):
    body = wire(CHANNELS[channel], chunk({}, "stop"), DONE)
    asked, unasked = Texts(str.upper, window, channels=(channel,)), upper()
    response = await streamed(body, asked, unasked)
    assert asked.pieces == [("abc", channel, 0)]
    assert unasked.pieces == []
    deltas = [choice["delta"] for got in chunks_of(response) for choice in got["choices"]]
    if channel == "tool_calls":
        calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
        assert {call["index"] for call in calls} == {1}
        assert "".join(call["function"]["arguments"] for call in calls) == "ABC"
    else:
        (key,) = CHANNELS[channel]["choices"][0]["delta"]
        assert "".join(delta.get(key, "") for delta in deltas) == "ABC"


@pytest.mark.parametrize("window", [0, 2])
async def test_every_place_of_a_text_is_known(window):
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
        {"type": "x"},
    ]
    body = wire(
        chunk({"content": parts}),
        chunk({"function_call": {"name": "f", "arguments": "args"}}),
        chunk({"function_call": {"arguments": 1}, "tool_calls": [{"index": 0}, 3], "content": 5}),
        {"choices": [{"index": 0, "finish_reason": None}, 1]},
        chunk({}, "stop"),
        DONE,
    )
    hook = Texts(str.upper, window, channels=("text", "reasoning", "tool_calls"))
    response = await streamed(body, hook)
    assert [piece for piece, *_ in hook.pieces] == ["hm", "yes", "args"]
    for word in ("HM", "YES", "ARGS"):
        assert word[-2:] in response.body.decode()


async def test_the_text_that_perplexity_repeats_beside_each_piece_is_mended():
    whole = lambda text: {"message": {"role": "assistant", "content": text}}  # noqa: E731
    body = wire(chunk({"content": "a"}, **whole("a")), chunk({"content": "b"}, "stop", **whole("ab")))
    assert (await streamed(body, Texts(lambda piece: None))).body == body
    response = await streamed(body, upper())
    assert [got["choices"][0]["message"]["content"] for got in chunks_of(response)] == ["A", "AB"]


async def test_text_completions_are_rewritten_too():
    body = wire(text_chunk("ab"), text_chunk("cd", index=1), text_chunk("e", "stop"), text_chunk("", "stop", 1), DONE)
    assert texts(await streamed(body, upper(), path=TEXT)) == {0: "ABE", 1: "CD"}
    assert texts(await streamed(body, Texts(str.upper, 3), path=TEXT)) == {0: "ABE", 1: "CD"}


async def test_a_windowed_hook_sees_what_the_stream_cuts_in_two():
    response = await streamed(said("the ", SECRET[:5], SECRET[5:], " is out"), mask())
    assert texts(response) == {0: f"the {'*' * len(SECRET)} is out"}
    held = [got["choices"][0]["delta"].get("content") for got in chunks_of(response)]
    assert held[1] == "", "what is held back still shows that the stream lives"


@pytest.mark.parametrize(
    "ending",
    [
        [chunk({}, "stop"), DONE],
        [chunk({"content": "!"}, "stop"), DONE],
        [DONE],
        [],
        [{"error": {"message": "upstream broke"}}],
    ],
    ids=["finish", "finish with text", "done", "nothing", "error"],
)
async def test_held_text_is_released_before_the_end(ending):
    body = wire(chunk({"content": "abc"}), *ending)
    response = await streamed(body, Texts(lambda piece: None, window=50))
    bang = "!" if any(isinstance(e, dict) and "!" in str(e) for e in ending) else ""
    assert texts(response) == {0: f"abc{bang}"}
    assert response.body.endswith(wire(*ending[-1:]) if not bang else wire(DONE))


async def test_the_settings_window_holds_for_hooks_without_their_own():
    class Masks(CallHooks):
        def async_post_call_streaming_hook(self, response):
            return response.replace(SECRET, "?")

    response = await streamed(said(SECRET[:3], SECRET[3:]), Masks(), streaming_window=30)
    assert texts(response) == {0: "?"}


async def test_chained_windows_release_through_each_other():
    first, second = mask(20), Texts(lambda piece: piece.replace("*", "#"), 5)
    response = await streamed(said(SECRET[:7], SECRET[7:] + " x"), first, second)
    assert texts(response) == {0: "#" * len(SECRET) + " x"}


async def test_a_refusal_of_the_first_piece_has_its_own_status():
    response = await streamed(said("a"), Texts(raises(HTTPException(451, "not this"))))
    assert (response.status, response.error()["message"]) == (451, "not this")
    response = await streamed(said("a"), Texts(raises(ValueError("inside"))))
    assert (response.status, response.error()["message"]) == (500, "Internal server error")


async def test_a_later_refusal_ends_the_stream_with_an_error_event():
    response = await streamed(said("a", "b", "c"), after(1, HTTPException(403, "no more")))
    assert response.status == 200
    assert response.body.endswith(
        wire({"error": {"message": "no more", "type": "permission_error", "param": None, "code": "403"}}, DONE)
    )
    assert texts(response) == {0: "a"}


async def test_a_message_in_mid_stream_is_said_in_every_open_choice():
    body = wire(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop"), chunk({"content": "c"}, index=1)
    )
    response = await streamed(body, after(2, Rejection("enough")))
    assert texts(response) == {0: "a", 1: "benough"}
    assert [got["choices"][0]["finish_reason"] for got in chunks_of(response)][-1] == "content_filter"
    assert response.body.endswith(wire(DONE))


@pytest.mark.parametrize("value", [1, b"a", ["a"], {}], ids=repr)
async def test_a_text_hook_returns_text_or_nothing(value):
    assert (await streamed(said("a"), Texts(lambda piece: value))).status == 500


async def test_a_crash_may_be_allowed_and_a_returned_exception_is_raised():
    assert texts(await streamed(said("a"), Texts(raises(ValueError())), on_hook_error="allow")) == {0: "a"}
    assert (await streamed(said("a"), Texts(lambda piece: HTTPException(418, "t")))).status == 418


async def test_many_opening_events_do_not_wait_for_ever():
    body = wire(*[{"choices": [], "prompt_filter_results": []}] * 20, chunk({"content": "a"}), DONE)
    response = await streamed(body, Texts(raises(HTTPException(403, "no"))))
    assert response.status == 200
    assert b'"message":"no"' in response.body


async def test_an_event_that_is_too_large_ends_the_stream():
    body = wire(chunk({"content": "a"}), chunk({"content": "b" * 500}))
    response = await streamed(body, upper(), max_event_bytes=300, pieces=[body[:150], body[150:]])
    assert (response.status, texts(response)) == (200, {0: "A"})
    assert b"too large to look at" in response.body


async def test_iterator_hooks_see_objects_and_nest_in_order():
    seen = []

    async def notes(chunks):
        async for got in chunks:
            seen.append(got.choices[0].delta.content)
            yield {**got}

    response = await streamed(said("one", "two"), Chunks(retitled), Chunks(notes))
    assert seen == ["", "One", "Two", None]
    assert texts(response) == {0: "OneTwo"}


async def test_iterator_hooks_come_before_text_hooks_and_may_be_coroutines():
    class Awaited(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            return retitled(response)

    assert texts(await streamed(said("one"), upper(), Awaited())) == {0: "ONE"}


async def test_iterator_hooks_may_yield_fewer_more_and_other_chunks():
    async def other(chunks):
        async for got in chunks:
            if got.choices[0].delta.content == "drop":
                continue
            yield got
            if got.choices[0].delta.content == "twice":
                yield {**chunk({"content": "!"}), "own": True}
                yield SimpleNamespace(model_dump=lambda: chunk({"content": "?"}))

    response = await streamed(said("drop", "twice"), Chunks(other))
    assert texts(response) == {0: "twice!?"}
    assert response.body.endswith(wire(DONE))


async def test_an_early_return_finishes_every_open_choice_and_stops_the_app():
    async def first_two(chunks):
        while True:
            got = await anext(chunks)
            yield got
            if got.choices[0].index == 1:
                return

    body = wire(
        chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({"content": "c"}), chunk({}, "stop"), DONE
    )
    response = await streamed(body, Chunks(first_two), pieces=[body[:130], body[130:]])
    assert texts(response) == {0: "a", 1: "b"}
    finishes = [
        (c["index"], c["finish_reason"]) for got in chunks_of(response) for c in got["choices"] if c["finish_reason"]
    ]
    assert finishes == [(0, "stop"), (1, "stop")]
    assert response.body.endswith(wire(DONE))


@pytest.mark.parametrize("value", [1, "data: x\n\n", b"x", None], ids=repr)
async def test_an_iterator_hook_yields_chunks(value):
    async def wrong(chunks):
        await anext(chunks)
        yield value

    assert (await streamed(said("a"), Chunks(wrong))).status == 500


async def test_an_iterator_hook_that_crashes_ends_the_stream_or_lets_it_pass():
    async def crashes(chunks):
        while True:
            got = await anext(chunks)
            yield got
            if got.choices[0].delta.content == "a":
                raise ValueError("inside")

    response = await streamed(said("a", "b"), Chunks(crashes))
    assert b"Internal server error" in response.body
    assert response.body.endswith(wire(DONE))
    assert texts(await streamed(said("a", "b"), Chunks(crashes), on_hook_error="allow")) == {0: "ab"}


async def test_an_iterator_hook_that_hangs_is_stopped():
    async def hangs(chunks):
        yield await anext(chunks)
        await anyio.sleep_forever()

    response = await streamed(said("a", "b"), Chunks(hangs), hook_timeout=0.05)
    assert b"Internal server error" in response.body


async def test_a_slow_client_is_not_the_generators_fault():
    request = Request(b'{"model":"m","stream":true,"messages":[]}')
    sent = []

    async def send(message):
        sent.append(message)
        if len(sent) == 2:
            await anyio.sleep(0.12)

    gate = LLMGate(Upstream(messages([said("a", "b")])), callbacks=[Chunks(retitled)], hook_timeout=0.05)
    await gate(request.scope, request.receive, send)
    assert texts(Response(sent)) == {0: "AB"}


HOOKS = {
    "a rewriting text hook": upper,
    "a redacting window": mask,
    "all channels": lambda: Texts(str.upper, 3, ("text", "tool_calls", "refusal", "reasoning")),
    "an iterator hook": lambda: Chunks(retitled),
    "a hook that raises": lambda: after(2, HTTPException(403, "no")),
    "a hook that rejects": lambda: after(3, Rejection("enough")),
}
MIXED = wire(
    {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    chunk(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"index": 0, "id": "i", "function": {"arguments": ""}}],
        }
    ),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
    chunk({"content": "ä€😀"}, index=1),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
    chunk({"content": SECRET[:4]}, index=1),
    chunk({"content": SECRET[4:]}, index=1),
    chunk({}, "tool_calls"),
    chunk({}, "stop", index=1),
    {"choices": [], "usage": {"total_tokens": 3}},
    DONE,
    end=b"\r\n\r\n",
)


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
async def test_single_bytes_give_the_same_bytes(hook):
    whole = await streamed(MIXED, hook())
    split = await streamed(MIXED, hook(), pieces=[MIXED[at : at + 1] for at in range(len(MIXED))])
    assert (split.status, split.body) == (whole.status, whole.body)


@given(st.lists(st.text("sk-ecrt1234 ", max_size=5), max_size=8), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
async def test_a_redacted_secret_is_in_no_stream(pieces, at):
    at = min(at, len(pieces))
    said_pieces = [*pieces[:at], SECRET[:6], SECRET[6:], *pieces[at:]]
    response = await streamed(said(*said_pieces), mask())
    assert SECRET not in texts(response)[0]
    assert len(texts(response)[0]) == len("".join(said_pieces))
