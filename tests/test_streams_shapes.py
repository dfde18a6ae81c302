"""Streams of chat and text completions: where their pieces stand, and what may be put between and behind them."""

from __future__ import annotations

import copy
import itertools

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_llm_gate.shapes import Slot, chat, plain, text
from tests.streams import chunks_of, client_of, helped_completion, streams
from tests.streams import plain as plainly

calm = settings(deadline=None)

CHATS = {name: chunks_of(body) for name, body in streams("chat/completions").items()}
TEXTS = {name: chunks_of(body) for name, body in streams("completions").items()}

STREAMS = [
    pytest.param(shape, chunks, id=name)
    for shape, found in ((chat, CHATS), (text, TEXTS))
    for name, chunks in found.items()
]

# The client's helper raises what an error in a stream says, and has no place for parts.
HELPED = {
    name: [chunk for chunk in chunks if chunk.get("object") == "chat.completion.chunk"]
    for name, chunks in CHATS.items()
    if not any("error" in chunk for chunk in chunks) and name != "chat_sse_parts"
}

NO = "No \u2013 \u201cnie\u201d, 🦊"

streamed = pytest.mark.parametrize(("shape", "chunks"), STREAMS)


def play(shape, chunks, edit=lambda piece: piece, stream=None):
    """Send a stream's chunks, each piece edited."""
    stream = stream or shape.open_stream()
    sent, mended = copy.deepcopy(chunks), []
    for chunk in sent:
        for slot in list(stream.slots(chunk)):
            if edit(slot.piece) != slot.piece:
                slot.put(edit(slot.piece))
        mended.append(stream.seen(chunk))
    return sent, mended


def texts_of(shape, chunks):
    """All the texts of a stream, by name."""
    stream, found = shape.open_stream(), {}
    for chunk in chunks:
        for slot in stream.slots(chunk):
            found[slot.text, slot.channel] = found.get((slot.text, slot.channel), "") + slot.piece
    return found


@streamed
def test_an_untouched_stream_is_not_mended(shape, chunks):
    sent, mended = play(shape, chunks)
    assert not any(mended)
    assert sent == chunks


@streamed
def test_every_piece_can_be_changed(shape, chunks):
    sent, _ = play(shape, chunks, str.upper)
    before = texts_of(shape, chunks)
    assert texts_of(shape, sent) == {name: said.upper() for name, said in before.items()}
    assembly = shape.open_assembly()
    for chunk in sent:
        assembly.add(chunk)
    whole = assembly.result()["choices"]
    for (name, _), said in before.items():
        texts = whole[name[0]].get("message", whole[name[0]])
        if isinstance(texts.get(name[1]), str):
            assert texts[name[1]] == said.upper()


KINDS = {
    "content": ({"content": "a"}, (0, "content"), "text"),
    "a refusal": ({"refusal": "a"}, (0, "refusal"), "refusal"),
    "reasoning_content": ({"reasoning_content": "a"}, (0, "reasoning_content"), "reasoning"),
    "reasoning": ({"reasoning": "a"}, (0, "reasoning"), "reasoning"),
    "details of reasoning": (
        {"reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]},
        (0, "reasoning_details", "reasoning.text", 0),
        "reasoning",
    ),
    "a summary of reasoning": (
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "a", "index": 1}]},
        (0, "reasoning_details", "reasoning.summary", 1),
        "reasoning",
    ),
    "a text part": ({"content": [{"type": "text", "text": "a"}]}, (0, "parts", "text"), "text"),
    "a thinking part": (
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]},
        (0, "parts", "reasoning"),
        "reasoning",
    ),
    "a tool call": (
        {"tool_calls": [{"index": 2, "function": {"arguments": "a"}}]},
        (0, "tool_calls", "function", 2),
        "tool_calls",
    ),
    "a custom tool call": (
        {"tool_calls": [{"index": 1, "custom": {"input": "a"}}]},
        (0, "tool_calls", "custom", 1),
        "tool_calls",
    ),
    "a function call": ({"function_call": {"arguments": "a"}}, (0, "function_call"), "tool_calls"),
    "a transcript": ({"audio": {"transcript": "a"}}, (0, "audio"), "text"),
}


@pytest.mark.parametrize(("delta", "name", "channel"), KINDS.values(), ids=KINDS)
def test_a_chunk_with_more_is_like_the_one_before(delta, name, channel):
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0}]}
    chunk["choices"][0]["delta"] = delta
    stream = chat.open_stream()
    (slot,) = stream.slots(chunk)
    assert (slot.text, slot.channel, slot.index, slot.piece) == (name, channel, 0, "a")
    stream.seen(chunk)
    more = stream.more(slot, "b")
    assert {**more, "choices": []} == {**chunk, "choices": []}
    (again,) = stream.slots(more)
    assert (again.text, again.channel, again.piece) == (name, channel, "b")
    assert again.key == slot.key


NOT_TEXT = [
    {},
    {"choices": None},
    {"choices": []},
    {"choices": [None, 1, "a"]},
    {"choices": [{"index": 0}]},
    {"choices": [{"index": 0, "delta": None, "text": None}]},
    {"choices": [{"index": 0, "delta": "a"}]},
    {"choices": [{"index": 0, "delta": [{"content": "a"}]}]},
    {"choices": [{"delta": {"content": "", "refusal": None, "tool_calls": None, "audio": {"data": "a"}}, "text": ""}]},
    {"choices": [{"delta": {"tool_calls": [None, {"function": None}, {"function": {"arguments": None}}, {}]}}]},
    {"choices": [{"delta": {"function_call": {"name": "f"}, "content": [{"type": "image"}], "audio": 1}}]},
    {"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "a"}]}}]},
    {"choices": [{"delta": {}, "message": None}, {"delta": None, "message": {"content": [1]}}]},
]


@pytest.mark.parametrize("chunk", NOT_TEXT, ids=repr)
@pytest.mark.parametrize("shape", [chat, text], ids=["chat", "text"])
def test_what_has_no_text_is_no_mistake(shape, chunk):
    stream = shape.open_stream()
    assert list(stream.slots(chunk)) == []
    assert list(stream.finishing(chunk)) == []
    stream.is_preamble(chunk)
    assert not stream.seen(chunk)


OPENINGS = {
    "chat_sse": 1,
    "chat_sse_azure": 2,
    "chat_sse_parts": 1,
    "chat_sse_choices": 2,
    "chat_sse_reasoning": 0,
    "chat_sse_repeats": 0,
}


@pytest.mark.parametrize(("name", "count"), OPENINGS.items())
def test_what_says_nothing_yet_is_preamble(name, count):
    stream = chat.open_stream()
    assert len(list(itertools.takewhile(stream.is_preamble, CHATS[name]))) == count


SPEAKING = [
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [{"text": "", "finish_reason": "stop"}]},
    {"choices": [{"delta": {"content": "a"}, "text": "a"}]},
    {"choices": [], "usage": {"total_tokens": 1}},
    {"error": {"message": "m"}},
]


@pytest.mark.parametrize("chunk", SPEAKING, ids=repr)
@pytest.mark.parametrize("shape", [chat, text], ids=["chat", "text"])
def test_an_end_an_error_and_a_count_are_no_preamble(shape, chunk):
    assert not shape.open_stream().is_preamble(chunk)


def test_a_tool_s_name_is_no_preamble():
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}}]}
    assert not chat.open_stream().is_preamble(call)


@streamed
def test_a_choice_is_finished_by_its_reason(shape, chunks):
    stream = shape.open_stream()
    finished = [name for chunk in chunks for name in stream.finishing(chunk)]
    reasons = [c["index"] for chunk in chunks for c in chunk.get("choices") or [] if c.get("finish_reason")]
    assert finished == [(index,) for index in reasons]


def test_log_probabilities_go_where_a_text_changed_and_stay_elsewhere():
    sent, _ = play(chat, CHATS["chat_sse_choices"], lambda piece: piece.replace("fox", "bear"))
    tokens = [
        choice["logprobs"]["content"][0]["token"]
        for chunk in sent
        for choice in chunk["choices"]
        if choice.get("logprobs")
    ]
    assert tokens == ["A ", "The "]


@pytest.mark.parametrize(
    ("logprobs", "left"), [(None, None), ({}, {}), ({"a": 1}, None), ([1], []), ([], [])], ids=repr
)
def test_log_probabilities_keep_their_form_when_they_go(logprobs, left):
    choice = {"text": "a", "logprobs": logprobs}
    Slot(choice, "text", (0,), "text", 0, choice).put("b")
    assert choice == {"text": "b", "logprobs": left}


def test_the_text_so_far_that_a_chunk_repeats_agrees_with_the_pieces():
    """Perplexity's chunks have it beside each delta; what was held back and came later counts too."""
    stream = chat.open_stream()
    first, second, third, last = copy.deepcopy(CHATS["chat_sse_repeats"])
    (slot,) = stream.slots(first)
    slot.put("")
    assert stream.seen(first)
    (slot,) = stream.slots(second)
    slot.put("A bl")
    assert stream.seen(second)
    assert stream.seen(third)
    assert not stream.seen(stream.more(slot, "ue."))
    assert stream.seen(last)
    repeated = [chunk["choices"][0]["message"]["content"] for chunk in (first, second, third, last)]
    assert repeated == ["", "A bl", "A blfox.", "A blfox.ue."]


# Ends


def cut(shape, chunks, at, end):
    stream = shape.open_stream()
    sent, _ = play(shape, chunks[:at], stream=stream)
    for chunk in end(stream):
        stream.seen(chunk)
        sent.append(chunk)
    return sent


CUTS = [pytest.param(chunks, at, id=f"{name}-{at}") for name, chunks in HELPED.items() for at in {0, 1, 2, 3, 5, 8}]


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_a_chat_may_end_anywhere_with_a_message(chunks, at):
    """The official client's helper reads it; each open choice says the message last, and all are finished."""
    open_choices = unfinished(chunks[:at])
    completion = helped_completion(cut(chat, chunks, at, lambda stream: stream.message_end(NO, "stop")))
    for choice in completion["choices"]:
        assert choice["finish_reason"]
        assert (choice["message"]["content"] or "").endswith(NO) is (choice["index"] in open_choices)
        assert choice["message"]["role"].startswith("assistant")


def unfinished(chunks):
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    finished = {choice["index"] for choice in choices if choice.get("finish_reason")}
    return {choice["index"] for choice in choices} - finished or ({0} if not choices else set())


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_text_may_be_put_behind_any_piece(chunks, at):
    stream = chat.open_stream()
    sent, _ = play(chat, chunks[:at], stream=stream)
    slots = [slot for chunk in sent for slot in stream.slots(chunk)][-1:]
    added = [stream.more(slot, " and more") for slot in slots]
    rest, _ = play(chat, chunks[at:], stream=stream)
    completion = helped_completion([*sent, *added, *rest])
    assert ("and more" in str(completion)) is bool(slots)


@streamed
def test_a_finished_stream_has_no_more_to_finish(shape, chunks):
    ended = cut(shape, chunks, len(chunks), lambda stream: stream.message_end(NO, "stop"))
    whole = not unfinished([chunk for chunk in chunks if "choices" in chunk])
    assert (ended == chunks) is whole


@pytest.mark.parametrize("chunks", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_text_completion_may_end_anywhere_with_a_message(chunks, at):
    sent = cut(text, chunks, at, lambda stream: stream.message_end(NO, "content_filter"))
    with client_of(sent) as client, client.completions.create(model="m", prompt="Hi", stream=True) as stream:
        read = [plainly(chunk)["choices"][0] for chunk in stream]
    last = read[-1]
    assert last["finish_reason"] == "content_filter"
    assert "".join(choice["text"] for choice in read if choice["index"] == last["index"]).endswith(NO)


def test_a_text_completion_takes_more():
    chunk = {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [{"index": 1, "text": "a"}]}
    stream = text.open_stream()
    (slot,) = stream.slots(chunk)
    stream.seen(chunk)
    more = stream.more(slot, "b")
    assert {**more, "choices": None} == {**chunk, "choices": None}
    assert (more["choices"][0]["text"], more["choices"][0]["index"]) == ("b", 1)


@streamed
def test_an_error_is_what_the_official_client_raises(shape, chunks):
    sent = cut(shape, chunks, 1, lambda stream: stream.error_end({"message": "Broken", "code": "c"}))
    assert sent[-1] == {"error": {"message": "Broken", "code": "c"}}
    with (
        client_of(sent) as client,
        client.completions.create(model="m", prompt="Hi", stream=True) as stream,
        pytest.raises(openai.APIError, match="Broken"),
    ):
        list(stream)


def test_events_of_choices_have_no_names_and_end_with_done():
    for shape in (chat, text):
        stream = shape.open_stream()
        assert stream.ends_with_done
        assert stream.event_name({"type": "a"}) is None
    assert plain.open_stream() is None


ODD = [*NOT_TEXT, *SPEAKING, {"id": "2", "choices": [{"index": "1", "delta": {"content": "a"}, "text": "a"}]}]


@calm
@given(st.lists(st.sampled_from(ODD), max_size=5), st.sampled_from([chat, text]), st.sampled_from(["", "m"]))
def test_odd_chunks_are_no_mistake(chunks, shape, message):
    stream = shape.open_stream()
    play(shape, chunks, str.upper, stream)
    ends = list(stream.message_end(message, "stop"))
    assert all(chunk["choices"] for chunk in ends)
