"""Events are cut from a byte stream the same way however it arrives, and keep their bytes."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_llm_gate.sse import DONE, Decoder, Event, EventTooLargeError, encode, encode_stream, json_of

PIECES = st.lists(
    st.sampled_from(
        [
            *(
                b"\n",
                b"\r",
                b"\r\n",
                b"\n\n",
                b"data: x",
                b"data:",
                b"data",
                b": comment",
                b"event: a",
                b"id: 1",
                b"retry: 3",
            ),
            *(b"unknown: y", b"\xef\xbb\xbf", "é€😀".encode(), b"\xe2\x80", b'data: {"a":1}'),
        ]
    ),
    max_size=16,
)


def decoded(chunks):
    decoder = Decoder(1_000_000)
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.close()


def cut(body, places):
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[begin:end] for begin, end in itertools.pairwise(borders)]


@given(PIECES, st.lists(st.integers(min_value=0), max_size=8))
def test_any_split_gives_the_same_events(pieces, places):
    body = b"".join(pieces)
    whole = decoded([body])
    assert decoded(cut(body, places)) == whole
    assert decoded([body[i : i + 1] for i in range(len(body))]) == whole
    assert b"".join(event.raw for event in whole) == body


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    ("lines", "data"),
    [
        ([b"data: a"], b"a"),
        ([b"data:a"], b"a"),
        ([b"data:  a"], b" a"),
        ([b"data: a", b"data: b"], b"a\nb"),
        ([b"data"], b""),
        ([b"event: e", b"id: 1", b"data: a", b"x: y"], b"a"),
        ([b"\xef\xbb\xbfdata: a"], b"a"),
        ([b": ping"], None),
        ([b"retry: 3000"], None),
        ([b"Data: a"], None),
        ([b" data: a"], None),
    ],
)
def test_fields_are_read_as_the_standard_says(lines, data, end):
    raw = end.join([*lines, b"", b""])
    assert decoded([raw]) == [Event(raw, data)]


def test_further_blank_lines_are_events_of_their_own():
    assert [event.raw for event in decoded([b"\ndata: a\n\n\ndata: b\n\n"])] == [
        b"\n",
        b"data: a\n\n",
        b"\n",
        b"data: b\n\n",
    ]


def test_an_event_waits_for_the_byte_behind_its_last_cr():
    decoder = Decoder(100)
    assert list(decoder.feed(b"data: a\r\r")) == []
    assert [event.raw for event in decoder.feed(b"\n")] == [b"data: a\r\r\n"]
    assert decoder.close() == []


def test_what_no_blank_line_ends_is_the_last_event():
    assert decoded([b"data: a\n\ndata: [DONE]"])[-1] == Event(b"data: [DONE]", b"[DONE]")


def test_an_event_may_not_be_larger_than_allowed():
    decoder, events = Decoder(10), []
    assert len(list(decoder.feed(b"data: a\n\n" * 10))) == 10
    for large in (b"data: abcdefg", b"data: abcdefg\n\n"):
        with pytest.raises(EventTooLargeError, match="more than 10 bytes"):
            events.extend(Decoder(10).feed(b"data: b\n\n" + large))
    assert [event.data for event in events] == [b"b", b"b"]


@pytest.mark.parametrize(("data", "done"), [(b"[DONE]", True), (b" [DONE] ", True), (b"[done]", False), (None, False)])
def test_the_end_is_known(data, done):
    assert Event(b"", data).is_done is done


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b"data: old\n\n", b"data: new\n\n"),
        (b"event: e\ndata: old\nid: 7\n\n", b"event: e\ndata: new\nid: 7\n\n"),
        (b": c\r\ndata: o\r\ndata: ld\r\nx: y\r\n\r\n", b": c\ndata: new\nx: y\n\n"),
        (b"data:old", b"data: new\n\n"),
        (b"\xef\xbb\xbfdata: old\n\n", b"data: new\n\n"),
    ],
)
def test_other_data_leaves_the_other_fields(raw, changed):
    assert Event.parse(raw).with_data(b"new") == Event(changed, b"new")


@pytest.mark.parametrize("data", [None, b"", b"[DONE]", b"[1]", b"{", b"\xff"])
def test_what_carries_no_object_carries_nothing(data):
    assert json_of(Event(b"", data)) is None
    assert json_of(Event(b"", b'{"a":1}')) == {"a": 1}


def test_chunks_are_written_in_one_line_each():
    assert encode({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert encode({"a": 1}, "e") == b'event: e\ndata: {"a":1}\n\n'
    assert encode_stream([{"a": 1}, {}]) == b'data: {"a":1}\n\ndata: {}\n\n' + DONE


@given(st.dictionaries(st.text(max_size=3), st.text()))
def test_what_is_written_is_read_again(chunk):
    (event,) = decoded([encode(chunk)])
    assert orjson.loads(event.data) == chunk
