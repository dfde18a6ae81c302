"""The app's messages pass through untouched, or are collected whole and answered in one piece."""

from __future__ import annotations

import gzip
import zlib

import pytest

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.reply import Collected, Collector, Reply, has_whole_body, is_json

pytestmark = pytest.mark.anyio


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(chunk=b"", more=False):
    return {"type": "http.response.body", "body": chunk, "more_body": more}


def typed(content_type):
    return start(200, (b"Content-Type", content_type))


class Wire:
    """What a reply sends on, and what it hands over."""

    def __init__(self, *, wanted=True, max_bytes=100):
        self.sent = []
        self.collected = []
        self.overflows = 0
        self.reply = Reply(
            self.send,
            lambda head: Collector(head, self.finish, self.overflow, max_bytes) if wanted else None,
        )

    async def send(self, message):
        self.sent.append(message)

    async def finish(self, collected):
        self.collected.append(collected)

    async def overflow(self):
        self.overflows += 1

    async def takes(self, *messages):
        for message in messages:
            await self.reply(message)


async def test_what_nobody_wants_passes_through_as_the_same_messages():
    wire = Wire(wanted=False)
    messages = [start(), body(b"a", more=True), body(b"b" * 1000), {"type": "http.response.trailers", "headers": []}]
    await wire.takes(*messages)
    assert all(given is got for given, got in zip(messages, wire.sent, strict=True))
    assert wire.collected == []


@pytest.mark.parametrize("cuts", [[b"abc"], [b"a", b"bc"], [b"", b"abc", b""], [b"a", b"b", b"c"]], ids=repr)
async def test_a_wanted_response_is_collected_from_any_pieces(cuts):
    wire = Wire()
    head = start(201, (b"x", b"y"))
    await wire.takes(head, *[body(cut, more=True) for cut in cuts[:-1]])
    assert wire.collected == []
    await wire.takes(body(cuts[-1]))
    (collected,) = wire.collected
    assert (collected.body, collected.status, collected.headers) == (b"abc", 201, [(b"x", b"y")])
    assert wire.sent == []


async def test_messages_may_lack_what_asgi_makes_optional():
    wire = Wire()
    await wire.takes({"type": "http.response.start", "status": 204}, {"type": "http.response.body"})
    (collected,) = wire.collected
    assert (collected.body, collected.headers) == (b"", [])


async def test_any_bytes_like_body_will_do():
    wire = Wire()
    await wire.takes(start(), body(memoryview(b"ab"), more=True), body(bytearray(b"c")))
    assert wire.collected[0].body == b"abc"


@pytest.mark.parametrize("chunks", [[b"x" * 101], [b"x" * 100, b"x"], [b"x" * 60, b"x" * 60, b"x" * 60]], ids=len)
async def test_a_response_over_the_limit_is_answered_once_and_the_rest_dropped(chunks):
    wire = Wire(max_bytes=100)
    await wire.takes(start(), *[body(chunk, more=True) for chunk in chunks], body(b"x"))
    assert wire.overflows == 1
    assert (wire.collected, wire.sent) == ([], [])


async def test_a_response_of_just_the_limit_is_collected():
    wire = Wire(max_bytes=100)
    await wire.takes(start(), body(b"x" * 50, more=True), body(b"x" * 50))
    assert (len(wire.collected), wire.overflows) == (1, 0)


async def test_what_follows_an_answered_response_is_dropped():
    """The answer may be another than the app's, to which its trailers do not belong."""
    wire = Wire()
    await wire.takes({**start(), "trailers": True}, body(b"a"), {"type": "http.response.trailers", "headers": []})
    (collected,) = wire.collected
    assert collected.start["trailers"] is False
    assert wire.sent == []


async def test_other_messages_before_the_start_pass():
    wire = Wire()
    hint = {"type": "http.response.early_hint", "links": []}
    await wire.takes(hint)
    assert wire.sent == [hint]


async def test_a_collected_response_is_sent_as_it_came():
    wire = Wire()
    head = start(200, (b"content-length", b"3"), (b"etag", b"1"))
    await Collected(head, b"abc").send(wire.send)
    assert wire.sent == [head, body(b"abc")]
    assert wire.sent[0] is head


async def test_another_body_loses_what_described_the_old_one():
    described = [
        (b"Content-Length", b"3"),
        (b"Content-Encoding", b"gzip"),
        (b"ETag", b"1"),
        (b"Content-MD5", b"1"),
        (b"Content-Digest", b"1"),
        (b"Digest", b"1"),
        (b"Repr-Digest", b"1"),
        (b"Accept-Ranges", b"bytes"),
        (b"Transfer-Encoding", b"chunked"),
    ]
    kept = [(b"content-type", b"application/json"), (b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X-Own", b"1")]
    old = Collected({**start(200, *kept[:1], *described, *kept[1:]), "trailers": False}, b"abc")
    new = old.with_body(b"abcdef")
    assert new.headers == [*kept, (b"content-length", b"6")]
    assert (new.body, new.start["trailers"]) == (b"abcdef", False)
    assert (old.body, len(old.headers)) == (b"abc", 13)


PLAIN = b'{"a":[1,2.50]}'
READABLE = [
    ("plain", PLAIN, None),
    ("identity", PLAIN, b"identity"),
    ("gzip", gzip.compress(PLAIN), b"gzip"),
    ("any case", gzip.compress(PLAIN), b" GZip "),
    ("x-gzip", gzip.compress(PLAIN), b"x-gzip"),
    ("deflate", zlib.compress(PLAIN), b"deflate"),
]


def encoded(content, coding):
    return Collected(start(200, *([(b"Content-Encoding", coding)] if coding else [])), content)


@pytest.mark.parametrize(("content", "coding"), [row[1:] for row in READABLE], ids=[row[0] for row in READABLE])
def test_the_json_of_a_response(content, coding):
    assert encoded(content, coding).decoded(100) == {"a": [1, 2.5]}


UNREADABLE = [
    ("no JSON", b"<html>", None),
    ("nothing", b"", None),
    ("a list", b"[1]", None),
    ("a string", b'"a"', None),
    ("too deep", b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", None),
    ("not UTF-8", b'{"a":"\xff"}', None),
    ("an unknown coding", PLAIN, b"br"),
    ("two codings", PLAIN, b"gzip, gzip"),
    ("not what it says", PLAIN, b"gzip"),
    ("cut", gzip.compress(PLAIN)[:-3], b"gzip"),
    ("a bomb", gzip.compress(b'{"a":"' + b"x" * 1000 + b'"}'), b"gzip"),
]


@pytest.mark.parametrize(("content", "coding"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_what_cannot_be_looked_at_is_502_and_logged(content, coding, caplog):
    with pytest.raises(GateError) as caught:
        encoded(content, coding).decoded(100)
    assert (caught.value.status_code, caught.value.code) == (502, "invalid_response")
    assert "can't be looked at" in caplog.text


JSON_TYPES = [
    b"application/json",
    b"Application/JSON; charset=utf-8",
    b"application/problem+json",
    b" application/json ",
]
OTHER_TYPES = [b"text/event-stream", b"text/html", b"application/jsonl", b"application/x-ndjson", b"audio/mpeg"]


@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_json_by_its_content_type(content_type):
    """Or by none: clients read JSON whatever the label, and no hook may be passed by for lack of one."""
    assert is_json(typed(content_type))


def test_json_without_a_content_type():
    assert is_json(start())


@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_not_json_by_its_content_type(content_type):
    assert not is_json(typed(content_type))


@pytest.mark.parametrize(
    ("status", "whole"),
    [
        (199, False),
        (200, True),
        (201, True),
        (204, False),
        (205, False),
        (206, False),
        (299, True),
        (300, False),
        (400, False),
    ],
)
def test_a_success_with_all_of_its_body(status, whole):
    assert has_whole_body(start(status)) is whole
