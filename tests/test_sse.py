"""Events are cut from a byte stream the same way however it arrives, and keep their bytes."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_llm_gate import sse
from asgi_llm_gate.sse import (
    Decoder,
    Event,
    EventTooLargeError,
    dumps,
    encode,
    is_whole,
    json_of,
)

ENDS = [b"\n", b"\r\n", b"\r"]
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
        (b"data: old\rid: 5\n\n", b"data: new\nid: 5\n\n"),
        (b"data: old\r: c\r\n\r\n", b"data: new\n: c\n\n"),
    ],
)
def test_other_data_leaves_the_other_fields(raw, changed):
    assert Event.parse(raw).with_data(b"new") == changed


@pytest.mark.parametrize("data", [None, b"", b"[DONE]", b"[1]", b"{", b"\xff"])
def test_what_carries_no_object_carries_nothing(data):
    assert json_of(Event(b"", data)) is None
    assert json_of(Event(b"", b'{"a":1}')) == {"a": 1}


def test_chunks_are_written_in_one_line_each():
    assert encode({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert encode({"a": 1}, "e") == b'event: e\ndata: {"a":1}\n\n'


@given(st.dictionaries(st.text(max_size=3), st.text()))
def test_what_is_written_is_read_again(chunk):
    (event,) = decoded([encode(chunk)])
    assert orjson.loads(event.data) == chunk


@given(PIECES)
def test_all_events_but_the_last_are_whole(pieces):
    events = decoded([b"".join(pieces)])
    assert all(is_whole(event.raw) for event in events[:-1])


@pytest.mark.parametrize(
    ("raw", "whole"),
    [
        *((b"data: a" + first + second, True) for first in ENDS for second in ENDS if first + second != b"\r\n"),
        *((end, True) for end in ENDS),
        *((b"data: a" + end, False) for end in (b"", *ENDS)),
        (b"a", False),
        (b"", False),
    ],
)
def test_an_event_is_whole_with_its_blank_line(raw, whole):
    assert is_whole(raw) is whole


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (rb'{"a":"\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":-Infinity}', {"a": float("-inf")}),
        (b'{"a":1e999}', {"a": float("inf")}),
        (b'{"a":"x\xe2\x82"}', {"a": "x\ufffd"}),
        (b"[NaN]", None),
        (b'{"a":' + b"[" * 100_000, None),
    ],
    ids=["half a surrogate pair", "infinity", "a number too large", "half a character", "no object", "too deep"],
)
def test_what_some_client_can_read_is_read(data, read):
    """Python's and JavaScript's readers take more than strict JSON; what they show, hooks must see."""
    assert json_of(Event(b"", data)) == read


def test_half_a_surrogate_pair_is_written_as_it_came():
    assert dumps({"a": "\ud83d é"}) == rb'{"a":"\ud83d \u00e9"}'
    assert dumps({"a": "é"}) == '{"a":"é"}'.encode()
    with pytest.raises(TypeError):
        dumps({"a": object()})


class Searches:
    """A pattern that counts the bytes it is shown."""

    def __init__(self, pattern):
        self.pattern = pattern
        self.bytes = 0

    def search(self, buffer, begin):
        self.bytes += len(buffer) - begin
        return self.pattern.search(buffer, begin)


def counted(monkeypatch, kind):
    """Have a decoder's patterns for blank lines count what they are shown."""
    patterns = [kind(sse._BLANK_LINE), kind(sse._LF_BLANK_LINE)]
    monkeypatch.setattr(sse, "_BLANK_LINE", patterns[0])
    monkeypatch.setattr(sse, "_LF_BLANK_LINE", patterns[1])
    return patterns


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
def test_a_long_event_in_small_chunks_is_searched_once(end, monkeypatch):
    """The work grows with the bytes, not with their square."""
    searches = counted(monkeypatch, Searches)
    body = (b"data: " + b"x" * 50 + end) * 200 + end
    (event,) = decoded([body[at : at + 1] for at in range(len(body))])
    assert event.raw == body
    assert 0 < sum(pattern.bytes for pattern in searches) <= 4 * len(body)


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
def test_many_events_in_one_chunk_are_searched_once(end, monkeypatch):
    class Matches(Searches):
        def search(self, buffer, begin):
            found = self.pattern.search(buffer, begin)
            self.bytes += found.end() - begin if found else len(buffer) - begin
            return found

    searches = counted(monkeypatch, Matches)
    body = (b"data: x" + end + end) * 1_000 + b"data: y"
    assert len(decoded([body])) == 1_001
    assert 0 < sum(pattern.bytes for pattern in searches) <= len(body)


@pytest.mark.parametrize("places", [[], [9], [3, 12, 20], range(40)], ids=repr)
def test_the_cap_falls_on_the_same_event_however_the_stream_is_cut(places):
    """Events before one that is too large are whole and out; none comes after it."""
    body = b"data: a\n\n: c\n\n" + b"data: long enough\n\ndata: b\n\n"
    decoder, got = Decoder(12), []
    with pytest.raises(EventTooLargeError):
        got.extend(event.raw for chunk in cut(body, places) for event in decoder.feed(chunk))
    assert got == [b"data: a\n\n", b": c\n\n"]
