"""What the fuzzer looks for holds of its seeds, and of what hypothesis makes of them."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_llm_gate.sse import Event
from fuzzing import body, form, path, sse

few = settings(max_examples=25, deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def pieces(*parts):
    return st.lists(st.sampled_from(parts) | st.binary(max_size=2), max_size=12).map(b"".join)


@pytest.mark.parametrize("target", [body, form, path, sse], ids=lambda target: target.__name__)
def test_seeds(target):
    """Every target keeps its promise on its seeds and on nothing at all."""
    for seed in (*target.SEEDS, b""):
        target.run(seed)


@few
@given(pieces(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b'"a":', b"1e", b"-0", b"\\ud83d", b"null"))
@example(b'{"a":%b}' % (b"[" * 127 + b"]" * 127))
@example(b"[" * 2_000)
@example(zlib.compress(b'{"a":1}'))
@example(zlib.compress(bytes(body.MAX_BYTES + 1)))
def test_bodies(data):
    """No exception but the gate's own, and what goes on is read as it was seen."""
    body.run(data)


@few
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_objects(data):
    """Of what Python writes as JSON, too."""
    body.run(json.dumps(data).encode())
    body.run(json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@few
@given(pieces(b"/", b"//", b"/v1", b"/chat", b"/completions", b"/embeddings", b";", b"%2f", b"/..", b"\n", b"\\"))
def test_paths(data):
    """A router that finds an endpoint in a path finds one that the gate has found."""
    path.run(data)


@few
@given(pieces(b"data: ", b"data", b":", b"event: x", b"\r", b"\n", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b'{"a":1}'))
@example(b"data: " + b"x" * sse.MAX_EVENT)
def test_streams(data):
    """The cut of a stream makes no difference, and nothing is lost."""
    sse.run(data)


BROKEN = [
    (body, "decode", lambda *_: {"a": [1] * 3_000}, b"{}", "more values"),
    (body, "parse", lambda _: {}, b'{"a":1}', "not canonical"),
    (body, "decompress", lambda *_: bytes(body.MAX_BYTES + 1), b"", "beyond the limit"),
    (path.Routes, "find", lambda *_: None, b"/v1/embeddings", "a router finds"),
    (sse.Decoder, "close", lambda _: [], b"data: a", "lost"),
    (sse.Decoder, "feed", lambda _, chunk: [Event.parse(chunk)], b"ab\n\n", "the cut"),
    (sse, "is_whole", lambda _: False, b"data: a\n\n\n", "no end"),
    (sse, "names_event", lambda event: event.raw.endswith(b"}\n\n"), b'data:{"a": 1}\r\n\r\n', "lost its name"),
]


@pytest.mark.parametrize(("where", "name", "broken", "data", "told"), BROKEN, ids=[row[-1] for row in BROKEN])
def test_a_broken_promise_is_noticed(monkeypatch, where, name, broken, data, told):
    """Each check of a target can fail."""
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(AssertionError, match=told):
        next(target for target in (body, path, sse) if where in vars(target).values() or where is target).run(data)
