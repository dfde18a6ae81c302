"""Chunks that differ in nothing but their piece are read without decoding the rest, and come out as the others do."""

from __future__ import annotations

import json

import anyio
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_llm_gate import CallHooks
from asgi_llm_gate.alike import Alike, pattern_of
from asgi_llm_gate.shapes import chat, messages, responses, text, threads, transcription
from asgi_llm_gate.sse import Event, dumps, json_of
from tests.test_streams import DONE, Texts, chunk, cut, said, streamed, text_chunk, wire

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

FORMS = {
    "compact": lambda got: wire(got),
    "spaced": lambda got: wire(json.dumps(got, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    "escaped": lambda got: wire(json.dumps(got).encode()),
    "CRLF": lambda got: wire(got, end=b"\r\n\r\n"),
    "named": lambda got: b": c\nevent: e\n" + wire(got),
    "twice the same": lambda got: wire(got).replace(b'"content":', b'"content":"x","content":'),
    "counted": lambda got: wire({**got, "n": len(got["choices"][0]["delta"]["content"])}),
    "signed": lambda got: wire({**got, "é": got["choices"][0]["delta"]["content"]}),
    "with noise": lambda got: wire({**got, "obfuscation": 'é"' + got["choices"][0]["delta"]["content"][1:]}),
    "with the piece for noise": lambda got: wire({**got, "obfuscation": got["choices"][0]["delta"]["content"]}),
    "with noise before": lambda got: wire({"obfuscation": got["choices"][0]["delta"]["content"][1:], **got}),
    "with noise twice": lambda got: wire({"obfuscation": "x", **got, "o": "y"}).replace(b'"o":', b'"obfuscation":'),
    "in two lines": lambda got: wire(got).replace(b',"choices"', b'\ndata: ,"choices"'),
}
PIECES = st.lists(st.text(st.sampled_from('ab" é\\😀\n\u2028'), min_size=1, max_size=3), max_size=8)


def rewritten(body, function):
    """What a hook without a window makes of a stream, each of its events decoded and encoded."""
    out = b""
    ended = body.replace(b"\r\n\r\n", b"\r\n\r\n\0").replace(b"\n\n", b"\n\n\0").split(b"\0")
    for raw in ended[:-1]:
        event = Event.parse(raw)
        got = json_of(event)
        for slot in chat.open_stream().slots(got or {}):
            piece = function(slot.piece)
            if piece != slot.piece:
                slot.put(piece)
                raw = event.with_data(dumps(got))
        out += raw
    return out


@given(st.sampled_from(list(FORMS)), PIECES, st.lists(st.integers(min_value=0), max_size=3), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
async def test_alike_or_not_the_client_gets_the_same(form, pieces, places, every):
    """Also where other chunks, of another choice or with other fields, come between."""
    body = wire(chunk({"role": "assistant", "content": ""}))
    for number, piece in enumerate(pieces):
        body += FORMS[form](chunk({"content": piece}))
        if number % every == 0:
            body += wire(chunk({"content": "b"}, index=number % 2, logprobs=[number]))
    body += wire(chunk({}, "stop"), DONE)
    for function in (str.upper, lambda piece: piece.replace("a", ""), lambda piece: piece):
        response = await streamed(body, Texts(function), pieces=cut(body, places))
        assert response.body == rewritten(body, function)


def alike(raw, shape=chat):
    """What compares the chunks of a stream, one of which it has seen."""
    event, found = Event.parse(raw), Alike(shape.open_stream())
    found.see(event, json_of(event))
    return found


A = wire(chunk({"content": "a"}))


@pytest.mark.parametrize(
    ("literal", "piece"),
    [
        (b'"b"', "b"),
        (b'"\\u00e9\\n"', "é\n"),
        ('"é😀"'.encode(), "é😀"),
        (b'"\\""', '"'),
        (b'""', None),
        (b'"b","content":"c"', None),
        (b'"b","role":"c"', None),
        (b'"b"},"finish_reason":"stop","x":{"y":"c"', None),
        (b'"\\"', None),
        (b'"\\ud83d"', None),
        (b'"\xe2\x82"', None),
        (b'"\t"', None),
        (b' "b"', None),
        (b"null", None),
        (b"1", None),
        (b'"', None),
        (b"", None),
    ],
)
def test_a_piece_is_one_string_between_the_same_bytes(literal, piece):
    assert alike(A).strings(A.replace(b'"a"', literal)) == (None if piece is None else (piece, ""))


NOISY = wire({**chunk({"content": "a"}), "obfuscation": "x"})


@pytest.mark.parametrize(
    ("old", "new", "strings"),
    [
        (b"", b"", ("a", "x")),
        (b'"x"', b'"yz"', ("a", "yz")),
        (b'"x"', b'""', ("a", "")),
        (b'"x"', b'"\\u00e9"', ("a", "é")),
        (b'"x"', b"7", None),
        (b'"x"', b'"y","z":"x"', None),
        (b'"a"', b'""', None),
        (b'"a"', b'"a","z":"a"', None),
        (b',"obfuscation":"x"', b"", None),
        (b'"},"finish_reason":null}],"obfuscation":"', b"", None),
        (b'"obfuscation":"x"', b'"obfuscation":"\\ud83d"', None),
    ],
)
def test_noise_behind_the_piece_may_differ_too(old, new, strings):
    assert alike(NOISY).strings(NOISY.replace(old, new)) == strings


@pytest.mark.parametrize(
    "raw",
    [
        wire(chunk({"content": "a"}, "stop")),
        wire(chunk({"content": "a"}, logprobs=[1])),
        wire(chunk({"content": "a"}, message={"content": "a"})),
        wire(chunk({"content": "a", "refusal": "b"})),
        wire(chunk({"role": "assistant", "content": ""})),
        A.replace(b'{"id"', b'{"x":"a","id"'),
        wire({**chunk({"content": "a"}), "é": "a piece tried out"}),
        A.replace(b'"a"', rb'"\u0061"'),
        A.replace(b'"created":1', b'"created":Infinity'),
        A.replace(b'"created":1', rb'"created":"\ud83d"'),
    ],
    ids=repr,
)
def test_what_says_more_than_its_piece_is_not_compared(raw):
    assert alike(raw).pattern is None


def test_what_is_put_back_is_what_was_there():
    event, got = Event.parse(A), chunk({"content": "a"})
    (slot,) = chat.open_stream().slots(got)
    pattern = pattern_of(event, got, slot)
    assert got == chunk({"content": "a"})
    assert pattern.changed.filled("a", "") == A
    assert orjson.loads(pattern.changed.filled("\ud83d", "")[6:].replace(b"\\ud83d", b"b")) == chunk({"content": "b"})


BLOCK = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
WHOLE = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}}


@pytest.mark.parametrize(
    ("shape", "got", "compared"),
    [
        (text, text_chunk("a"), True),
        (messages, BLOCK, True),
        (messages, WHOLE, False),
        (responses, {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"}, False),
        (transcription, {"type": "transcript.text.delta", "delta": "a"}, False),
        (threads, {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "a"}}]}}, False),
    ],
)
def test_shapes_that_note_every_piece_have_every_chunk_decoded(shape, got, compared):
    assert (alike(b"event: e\n" + wire(got), shape).pattern is not None) is compared


def test_a_block_that_moves_up_is_not_compared():
    stream = messages.open_stream()
    stream.seen({**WHOLE, "index": 1})
    assert stream.is_repeatable(BLOCK)
    assert not stream.is_repeatable({**BLOCK, "index": 1})


def test_a_stream_in_which_none_is_like_the_one_before_is_compared_no_more():
    found = alike(A)
    for number in range(5):
        got = {**chunk({"content": "a"}), "created": number}
        found.see(Event.parse(wire(got)), got)
    assert found.pattern is None
    assert found.strings(A) is None


def test_one_in_which_some_are_is_compared_on():
    found = alike(A)
    for number in range(5):
        got = {**chunk({"content": "a"}), "created": number}
        found.see(Event.parse(wire(got)), got)
        assert found.strings(wire(got)) == ("a", "")


async def test_a_hook_is_told_of_alike_pieces_what_it_is_told_of_others():
    hook = Texts(lambda piece: None)
    await streamed(said("a", "b", "c"), hook)
    assert hook.pieces == [("a", "text", 0), ("b", "text", 0), ("c", "text", 0)]


async def test_nothing_of_a_message_is_looked_at_behind_the_piece_that_a_hook_refused():
    def refuse(piece):
        if piece == "c":
            raise ValueError
        return piece

    hook = Texts(refuse)
    await streamed(said("a", "b", "c", "d", "e"), hook)
    assert [piece for piece, *_ in hook.pieces] == ["a", "b", "c"]


async def test_alike_pieces_behind_a_cut_go_to_no_hook():
    """Moderation ended the stream while a hook was at work on the piece before."""
    working, refused, pieces = anyio.Event(), anyio.Event(), []

    class Slow(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            pieces.append(str(response))
            if response == "c":
                working.set()
                await refused.wait()

        async def async_moderation_hook(self):
            await working.wait()
            return "Enough."

        async def async_post_call_failure_hook(self):
            refused.set()
            await anyio.wait_all_tasks_blocked()

    body = said("a", "b", "c", "d")
    sent = cut(body, [body.index(wire(chunk({"content": "c"})))])
    response = await streamed(body, Slow(), pieces=sent, moderation_mode="cut", cancel_grace=60)
    assert pieces == ["a", "b", "c"]
    assert "Enough." in response.body.decode()
