"""Anthropic's messages: what the model reads, what the gate says, and how streams are read, mended and ended."""

from __future__ import annotations

import orjson
import pytest

from asgi_llm_gate import get_formatted_prompt
from asgi_llm_gate.errors import GateError, error_fields
from asgi_llm_gate.shapes import message_input, messages
from asgi_llm_gate.shapes.message_errors import error_body
from tests.streams import chunks_of, streams

WHOLE = chunks_of(streams("messages")["messages_sse"])


def block(**fields):
    return {"messages": [{"role": "user", "content": [fields]}]}


def text(word):
    return {"type": "text", "text": word}


PLACES = {
    "a system prompt": lambda word: {"system": word},
    "a system block": lambda word: {"system": [text(word)]},
    "content": lambda word: {"messages": [{"role": "user", "content": word}]},
    "a text block": lambda word: block(**text(word)),
    "one block that is no list": lambda word: {"messages": [{"content": text(word)}]},
    "one message that is no list": lambda word: {"messages": {"content": word}},
    "a message that is a text": lambda word: {"messages": [word]},
    "thinking": lambda word: block(type="thinking", thinking=word, signature="x"),
    "a tool's input": lambda word: block(type="tool_use", name="f", input={"a": [{"b": word}]}),
    "a name in a tool's input": lambda word: block(type="tool_use", name="f", input={word: None}),
    "a server tool's input": lambda word: block(type="server_tool_use", name="f", input={"query": word}),
    "a tool's result": lambda word: block(type="tool_result", tool_use_id="1", content=word),
    "a block of a tool's result": lambda word: block(type="tool_result", content=[{"type": "image"}, text(word)]),
    "a document": lambda word: block(type="document", source={"type": "text", "data": word}),
    "a document of blocks": lambda word: block(type="document", source={"type": "content", "content": [text(word)]}),
    "a document's title": lambda word: block(type="document", source={"type": "base64", "data": "x"}, title=word),
    "a document's context": lambda word: block(type="document", source={"type": "url", "url": "u"}, context=word),
    "a search result": lambda word: block(type="search_result", source="s", title="t", content=[text(word)]),
    "a search result's source": lambda word: block(type="search_result", source=word),
    "a tool's description": lambda word: {"tools": [{"name": "f", "description": word}]},
    "a field of other servers": lambda word: {"prompt": word},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_text_is_found_wherever_a_request_carries_it(place):
    data = place("Hello world")
    assert "Hello world" in messages.prompt_text(data).splitlines()
    assert message_input.prompt_text(data) == messages.prompt_text(data)
    for name in ("anthropic_messages", "anthropic_messages_count_tokens"):
        assert get_formatted_prompt(data, name) == messages.prompt_text(data)


def test_blocks_of_one_message_run_on_and_messages_do_not():
    data = {"system": "s", "messages": [{"content": [text("Hello "), text("world")]}, {"content": "hel"}]}
    assert messages.prompt_text(data) == "s\nHello world\nhel"


def test_numbers_of_a_tools_input_are_read():
    assert messages.prompt_text(block(type="tool_use", input={"card": 4111})) == "card\n4111"


@pytest.mark.parametrize("value", [None, 1, True, [1, [2]], {}, [{}], [[]], [{"type": "image"}]], ids=repr)
def test_what_has_no_text_is_no_mistake(value):
    assert messages.prompt_text({"system": value, "messages": value, "tools": value}) == ""
    assert messages.prompt_text({"messages": [{"content": value}], "tools": [{"description": value}]}) == ""
    data = block(type="document", source=value, content=value, thinking=value)
    assert messages.prompt_text(data) == ""


def test_a_count_has_no_words_to_refuse_with():
    assert message_input.rejection({}, "no", id="1", created=1) is None


ERRORS = [
    (400, None, "invalid_request_error"),
    (401, None, "authentication_error"),
    (402, None, "billing_error"),
    (403, None, "permission_error"),
    (404, None, "not_found_error"),
    (408, None, "invalid_request_error"),
    (413, None, "request_too_large"),
    (429, None, "rate_limit_error"),
    (500, None, "api_error"),
    (502, None, "api_error"),
    (504, None, "timeout_error"),
    (529, None, "overloaded_error"),
    (403, "policy", "policy"),
]


@pytest.mark.parametrize(("status", "given", "expected"), ERRORS)
def test_errors_have_anthropics_types(status, given, expected):
    body = error_body(GateError(status, "no", type=given), "req_1")
    assert body == {"type": "error", "error": {"type": expected, "message": "no"}, "request_id": "req_1"}


def start(index, kind="text", **fields):
    content = {"type": kind, **({kind: ""} if kind in ("text", "thinking") else {}), **fields}
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index, text="a", kind="text_delta", key="text"):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: text}}


def stop(index):
    return {"type": "content_block_stop", "index": index}


BEGUN = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1, "output_tokens": 3}}}
STOPPED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
END = {"type": "message_stop"}


def opened(*chunks):
    stream = messages.open_stream()
    for chunk in chunks:
        stream.seen(orjson.loads(orjson.dumps(chunk)))
    return stream


def ended(stream, message, reason):
    found = []
    for chunk in stream.message_end(message, reason):
        stream.seen(chunk)
        found.append(chunk)
    return found


def last(reason, tokens=3):
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}, END]


TOOL = start(0, "tool_use", id="t", name="f", input={})

# What has been seen, and what ends the message with a last word, and without one.
ENDS = {
    "an open text": ([BEGUN, start(0)], [delta(0, "no"), stop(0)], [stop(0)]),
    "a closed text": ([BEGUN, start(0), stop(0)], [start(1), delta(1, "no"), stop(1)], []),
    "an open tool call": ([BEGUN, TOOL], [stop(0), start(1), delta(1, "no"), stop(1)], [stop(0)]),
    "nothing but the start": ([BEGUN], [start(0), delta(0, "no"), stop(0)], []),
    "blocks left out": ([BEGUN, start(2), stop(2)], [start(1), delta(1, "no"), stop(1)], []),
    "an open text that moved up": ([BEGUN, start(2)], [delta(0, "no"), stop(0)], [stop(0)]),
}


@pytest.mark.parametrize(("before", "said", "silent"), ENDS.values(), ids=ENDS)
def test_a_message_ends_in_good_form(before, said, silent):
    assert ended(opened(*before), "no", "content_filter") == [*said, *last("refusal")]
    assert ended(opened(*before), "", "stop") == [*silent, *last("end_turn")]


def test_a_message_that_has_not_begun_begins():
    first, *rest = ended(opened(), "no", "content_filter")
    assert (first["type"], first["message"]["content"]) == ("message_start", [])
    assert rest == [start(0), delta(0, "no"), stop(0), *last("refusal", 0)]


def test_a_message_that_has_said_why_it_stops_says_no_more():
    assert ended(opened(BEGUN, STOPPED), "no", "content_filter") == [END]
    assert ended(opened(BEGUN, STOPPED, END), "no", "content_filter") == []
    early = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}}
    assert ended(opened(BEGUN, early), "", "stop") == last("end_turn", 4)


def test_an_error_ends_a_stream_in_anthropics_form():
    for status, kind in ((500, "api_error"), (403, "permission_error")):
        (chunk,) = messages.open_stream().error_end(error_fields(GateError(status, "no", code="c")))
        assert chunk == {"type": "error", "error": {"type": kind, "message": "no"}}


SLOTS = [
    (delta(1), [("a", "text", 1)]),
    (delta(1, kind="thinking_delta", key="thinking"), [("a", "reasoning", 1)]),
    (delta(1, kind="input_json_delta", key="partial_json"), [("a", "tool_calls", 1)]),
    (delta(1, ""), []),
    (delta(1, 1), []),
    (delta(1, kind="signature_delta", key="signature"), []),
    (delta(1, kind="new_delta", key="text"), []),
    ({"type": "content_block_delta", "index": 0, "delta": None}, []),
    (start("x", text="whole"), [("whole", "text", 0)]),
    (start(2, "thinking", thinking="whole"), [("whole", "reasoning", 2)]),
    (start(2), []),
    (TOOL, []),
    (BEGUN, []),
    ({"type": "ping"}, []),
]


@pytest.mark.parametrize(("chunk", "expected"), SLOTS)
def test_pieces_are_found_where_they_stand(chunk, expected):
    slots = list(messages.open_stream().slots(chunk))
    assert [(slot.piece, slot.channel, slot.index) for slot in slots] == expected


FINISHES = [
    (stop(3), [(3,)]),
    (delta(3, kind="signature_delta", key="signature"), [(3, "thinking_delta")]),
    (delta(3), []),
    (STOPPED, [()]),
    (END, [()]),
    ({"type": "error", "error": {}}, [()]),
    (start(3), []),
]


@pytest.mark.parametrize(("chunk", "names"), FINISHES)
def test_what_gets_no_more_text_is_let_go_of(chunk, names):
    assert list(messages.open_stream().finishing(chunk)) == names


PREAMBLES = [(BEGUN, True), ({"type": "ping"}, True), (start(0), True), (start(0, "thinking"), True)]
NO_PREAMBLES = [(start(0, text="a"), False), (TOOL, False), (delta(0), False), (STOPPED, False), ({}, False)]


@pytest.mark.parametrize(("chunk", "expected"), PREAMBLES + NO_PREAMBLES)
def test_events_that_only_open_the_stream(chunk, expected):
    assert messages.open_stream().is_preamble(chunk) is expected


def test_more_of_a_text_is_a_delta_of_its_kind():
    for chunk in (delta(1), delta(1, kind="input_json_delta", key="partial_json")):
        stream = messages.open_stream()
        (slot,) = stream.slots(chunk)
        assert stream.more(slot, "a") == chunk


def test_events_are_named_by_their_type():
    assert messages.open_stream().event_name(END) == "message_stop"
    assert messages.open_stream().event_name({"type": 1}) is None


def test_blocks_behind_one_that_was_left_out_move_up():
    stream = opened(BEGUN, start(0), stop(0))
    for chunk, index in ((start(2), 1), (delta(2), 1), (stop(2), 1)):
        assert stream.seen(chunk) is True
        assert chunk["index"] == index


def test_a_stream_is_put_together():
    assembly = messages.open_assembly()
    assert assembly.result() is None
    for chunk in WHOLE:
        assembly.add(chunk)
    message = assembly.result()
    thought, said, call = message["content"]
    assert thought == {"type": "thinking", "thinking": "A fox asks.", "signature": "c2ln"}
    assert said["text"] == "Ich bin ein Füchslein 🦊, mein Code ist 1234."
    assert [citation["cited_text"] for citation in said["citations"]] == ["fox"]
    assert call == {"type": "tool_use", "id": "toolu_f", "name": "lookup", "input": {"animal": "fox", "n": 2}}
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (21, 42)


def test_what_came_of_a_broken_stream_is_put_together():
    assembly = messages.open_assembly()
    broken = [TOOL, delta(0, '{"a', "input_json_delta", "partial_json"), delta(0, kind="new_delta"), delta(7), {}]
    for chunk in broken:
        assembly.add(chunk)
    assert assembly.result() == {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": '{"a'}]}
    empty = messages.open_assembly()
    for chunk in (BEGUN, TOOL, delta(0, "", "input_json_delta", "partial_json")):
        empty.add(chunk)
    assert empty.result()["content"][0]["input"] == {}


def test_a_field_that_an_event_lacks_is_none():
    assert messages.Response(type="ping").delta is None
