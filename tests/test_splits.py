"""However a stream is cut into messages, hooks make the same bytes of it, and leave alone what they do not change."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from asgi_llm_gate import LLMGate
from asgi_llm_gate.errors import Rejection
from asgi_llm_gate.sse import Decoder, json_of
from tests.harness import CHAT, Request, Upstream
from tests.test_recordings import EXCHANGES
from tests.test_streams import TEXT, Chunks, Texts, after, cut, messages

pytestmark = pytest.mark.anyio

ALL = ("text", "tool_calls", "refusal", "reasoning")
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
DONE = b"data: [DONE]"
PATHS = {"chat/completions": CHAT, "completions": TEXT}
RECORDED = {
    name: (PATHS[exchange["call"]], exchange["response"]["body"].encode())
    for name, exchange in EXCHANGES.items()
    if exchange["call"] in PATHS and "event-stream" in exchange["response"]["content_type"]
}


async def passed(chunks):
    async for got in chunks:
        yield got


async def marked(chunks):
    async for got in chunks:
        yield got
        if got.choices and got.choices[0].finish_reason is None:
            got.mark = 1
            yield got


async def filtered(chunks):
    async for got in chunks:
        if not got.usage:
            yield got


async def cut_short(chunks):
    left = 3
    async for got in chunks:
        yield got
        left -= 1
        if not left:
            return


class Fails:
    """An iterator that crashes at a chunk."""

    def __init__(self, at):
        self.at = at

    async def __call__(self, chunks):
        left = self.at
        async for got in chunks:
            if not left:
                raise ValueError("inside")
            left -= 1
            yield got


def vowels(piece):
    return re.sub("[aeiou]", "*", piece)


NO_OP = {
    "a text hook of nothing": lambda: [Texts(lambda piece: None, 0, ALL)],
    "an iterator hook of nothing": lambda: [Chunks(passed), Chunks(passed)],
    "both": lambda: [Chunks(passed), Texts(lambda piece: None, 0, ALL)],
}
REWRITING = {
    "rewriting": lambda: [Texts(str.upper, 0, ALL)],
    "redacting": lambda: [Texts(vowels)],
    "dropping": lambda: [Texts(lambda piece: "" if "a" in piece else None)],
    "a window": lambda: [Texts(vowels, 7)],
    "a large window": lambda: [Texts(lambda piece: None, 10_000, ALL)],
    "windows in a row": lambda: [Texts(vowels, 3, ALL), Texts(str.upper, 11), Texts(lambda piece: piece + ".")],
    "marking chunks": lambda: [Chunks(marked)],
    "filtering chunks": lambda: [Chunks(filtered), Texts(vowels, 5)],
    "ending early": lambda: [Chunks(cut_short), Texts(vowels, 5)],
}
REFUSALS = {"a refusal": HTTPException(403, "no"), "a crash": ValueError(), "a message": Rejection("no")}
RAISING = {
    f"{kind} at {at}": lambda exc=exc, at=at: [after(at, exc)] for kind, exc in REFUSALS.items() for at in (0, 1, 4)
} | {f"an iterator's crash at {at}": lambda at=at: [Chunks(Fails(at))] for at in (0, 1, 4)}

TEXTS = st.text('ab{}"\\ äé€😀\u2028\n', max_size=6)
INDEXES = st.integers(0, 2)
LOGPROBS = st.sampled_from([None, {"content": [{"token": "a", "logprob": -1.5}]}])


def choices(index, delta, finish, logprobs):
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def parts(text, thought):
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
    return {"content": [thinking, {"type": "text", "text": text}]}


def tool_call(index, text):
    function = {"name": "f", "arguments": text}
    return {"tool_calls": [{"index": index, "id": "call", "type": "function", "function": function}]}


DELTAS = st.one_of(
    st.fixed_dictionaries({"content": TEXTS}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.sampled_from(["", None])}),
    st.fixed_dictionaries({"refusal": TEXTS}),
    st.fixed_dictionaries({"reasoning_content": TEXTS, "content": st.none()}),
    st.builds(parts, TEXTS, TEXTS),
    st.builds(tool_call, INDEXES, TEXTS),
    st.just({}),
)
FINISHES = st.sampled_from([None, None, None, "stop", ""])
FILTERED = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
OFFSETS = {"index": 0, "content_filter_offsets": {"check_offset": 4}, "finish_reason": None}
CHUNKS = st.one_of(
    st.builds(
        lambda made: {**HEAD, "choices": made},
        st.lists(st.builds(choices, INDEXES, DELTAS, FINISHES, LOGPROBS), max_size=2),
    ),
    st.just(FILTERED),
    st.just({**HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
    st.just({**HEAD, "choices": [OFFSETS]}),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.one_of(
    CHUNKS.map(lambda made: b"data: " + orjson.dumps(made)),
    st.sampled_from([b": ping", b"id: 4", b"data:", b'data: {"half":', b"event: x", b"\xef\xbb\xbf"]),
)


@st.composite
def streams(draw):
    """The bytes of a stream: mostly chunks, each behind whatever else there may be, in one of the line ends."""
    body = b""
    for line in draw(st.lists(LINES, max_size=12)):
        end = draw(ENDS)
        body += line + end + draw(st.sampled_from([end, end, end, end + end, b""]))
    return body + draw(st.sampled_from([b"", DONE + b"\n\n", DONE, b'data: {"choi']))


# What each way of drawing a stream may come to.
EVERYTHING = b"".join(
    b"data: %b\n\n" % orjson.dumps({**HEAD, "choices": [choices(0, delta, None, {"content": []})]})
    for delta in ({"content": "abc"}, {"refusal": "a"}, parts("ab", "ac"), tool_call(1, "a{}"), {"content": "b"}, {})
)
CUTS = st.one_of(
    st.lists(st.integers(min_value=0), max_size=12),
    st.integers(1, 9).map(lambda size: range(0, 100_000, size)),
)


async def streamed(path, pieces, *callbacks):
    request = Request(b'{"model":"m","stream":true,"messages":[],"prompt":"p","n":3}', path=path)
    response = await request.to(LLMGate(Upstream(messages(pieces)), callbacks=callbacks))
    if response.status != 200 or response.sent[0]["headers"] != messages([])[0]["headers"]:
        # An answer in place of the stream: its ids are its own.
        return re.sub(rb'"(id|created)":("[^"]*"|\d+)', rb"", response.body)
    return response.body


def places_in(body, places):
    return [place for place in places if place <= len(body)] if isinstance(places, range) else places


relaxed = settings(
    max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
thorough = settings(relaxed, max_examples=25)
each_recorded = pytest.mark.parametrize(("path", "body"), RECORDED.values(), ids=RECORDED)


def each(hooks):
    return pytest.mark.parametrize("hooks", hooks.values(), ids=hooks)


class OneBackend:
    """Cuts are cut the same everywhere; the core's other tests run on trio too."""

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"


class TestRecorded(OneBackend):
    wholes: ClassVar[dict[Any, bytes]] = {}

    @each(NO_OP)
    @each_recorded
    @relaxed
    @given(places=CUTS)
    async def test_hooks_that_change_nothing_leave_every_byte(self, path, body, hooks, places):
        assert await streamed(path, cut(body, places_in(body, places)), *hooks()) == body

    @each(REWRITING | RAISING)
    @each_recorded
    @relaxed
    @given(places=CUTS)
    async def test_any_split_gives_the_same_bytes(self, path, body, hooks, places):
        if (body, hooks) not in self.wholes:
            self.wholes[body, hooks] = await streamed(path, [body], *hooks())
        assert await streamed(path, cut(body, places_in(body, places)), *hooks()) == self.wholes[body, hooks]

    @each_recorded
    async def test_events_of_which_no_text_is_changed_keep_their_bytes(self, path, body):
        """Of a stream of which one piece is rewritten, every event but that one passes as it came."""
        pieces = Texts(lambda piece: None)
        await streamed(path, [body], pieces)
        texts = [piece for piece, *_ in pieces.pieces]
        marked = next((piece for piece in texts if texts.count(piece) == 1), None)
        rewriting = Texts(lambda piece: "REWRITTEN" if piece == marked else None)
        before, now = events(body), events(await streamed(path, [body], rewriting))
        assert len(before) == len(now)
        differing = [new for old, new in zip(before, now, strict=True) if old.raw != new.raw]
        assert all(b"REWRITTEN" in new.raw for new in differing)
        deltas = [
            str(choice.get("delta", choice.get("text"))) for new in differing for choice in json_of(new)["choices"]
        ]
        assert ["REWRITTEN" in delta for delta in deltas].count(True) == (marked is not None)


def events(body):
    decoder = Decoder(len(body) + 1)
    return [*decoder.feed(body), *decoder.close()]


class TestGenerated(OneBackend):
    @each(NO_OP)
    @thorough
    @given(body=streams(), places=CUTS)
    async def test_hooks_that_change_nothing_leave_every_byte(self, hooks, body, places):
        assert await streamed(CHAT, cut(body, places_in(body, places)), *hooks()) == body

    @each(REWRITING | RAISING)
    @thorough
    @given(body=streams(), places=CUTS)
    async def test_any_split_gives_the_same_bytes(self, hooks, body, places):
        whole = await streamed(CHAT, [body], *hooks())
        assert await streamed(CHAT, cut(body, places_in(body, places)), *hooks()) == whole

    @thorough
    @given(body=streams())
    @example(body=EVERYTHING)
    async def test_log_probabilities_go_with_a_changed_text_alone(self, body):
        """Where the text of a choice differs they are gone; where it does not, they are as they came."""
        hook = Texts(lambda piece: piece.replace("a", "x"), 0, ALL)
        for old, new in zip(events(body), events(await streamed(CHAT, [body], hook)), strict=True):
            for was, is_ in zip(*((json_of(event) or {}).get("choices", ()) for event in (old, new)), strict=True):
                same = was.get("delta") == is_.get("delta")
                assert is_.get("logprobs") == (was.get("logprobs") if same else None)
                assert same or "x" in str(is_["delta"])

    @thorough
    @given(body=streams(), size=st.integers(0, 30))
    @example(body=EVERYTHING, size=2)
    async def test_a_window_loses_no_text_and_moves_none_to_another_place(self, body, size):
        hook = Texts(lambda piece: None, size, ALL)
        assert spoken(await streamed(CHAT, [body], hook)) == spoken(body)


def spoken(body):
    """All that a stream says, by choice and place."""
    said: dict[tuple, str] = {}

    def say(text, *place):
        if isinstance(text, str) and text:
            said[place] = said.get(place, "") + text

    for event in events(body):
        for choice in (json_of(event) or {}).get("choices", ()):
            index, delta = choice["index"], choice.get("delta") or {}
            for key in ("content", "refusal", "reasoning_content"):
                say(delta.get(key), index, key)
            for call in delta.get("tool_calls", ()):
                say(call["function"]["arguments"], index, "call", call["index"])
            for part in delta["content"] if isinstance(delta.get("content"), list) else ():
                for inner in part.get("thinking", ()):
                    say(inner["text"], index, "thinking")
                say(part.get("text"), index, "part")
    return said
