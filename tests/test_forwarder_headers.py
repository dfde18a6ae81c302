from __future__ import annotations

import pytest

from asgi_llm_gate.forwarder import headers

HOP_BY_HOP = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
]
CREDENTIALS = [b"authorization", b"api-key", b"x-api-key", b"x-litellm-api-key", b"x-goog-api-key", b"cookie"]
IDENTITY = (b"accept-encoding", b"identity")


@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"host", b"expect", b"content-length"])
def test_request_header_of_the_connection_stays_here(name):
    """What belongs to the client's connection is not sent to the upstream."""
    sent = headers.forwarded(((name, b"x"), (b"x-kept", b"1")), own=(), keep_credentials=True)
    assert sent == ((b"x-kept", b"1"), IDENTITY)


@pytest.mark.parametrize("name", [*HOP_BY_HOP, b"date", b"server", b"alt-svc"])
def test_response_header_of_the_connection_stays_there(name):
    """What belongs to the upstream's connection or server is not sent to the client."""
    assert headers.returned([(name.title(), b"x"), (b"X-Kept", b"1")], 200) == ((b"x-kept", b"1"),)


def test_headers_named_by_connection_are_dropped_both_ways():
    """Each token of each Connection header names another header of that connection."""
    pairs = (
        (b"connection", b"close, X-One"),
        (b"x-one", b"1"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"connection", b"x-TWO"),
    )
    assert headers.forwarded(pairs, own=(), keep_credentials=True) == ((b"x-three", b"3"), IDENTITY)
    assert headers.returned(pairs, 200) == ((b"x-three", b"3"),)


def test_repeated_headers_keep_their_order():
    """Repetitions are neither joined nor sorted."""
    pairs = ((b"set-cookie", b"a=1"), (b"vary", b"origin"), (b"set-cookie", b"b=2"))
    assert headers.returned(pairs, 200) == pairs


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_go_on_only_where_they_may(name):
    """The client's keys and cookies go to the upstream only when it has none of its own."""
    pairs = ((name, b"secret"),)
    assert headers.forwarded(pairs, own=(), keep_credentials=True) == (*pairs, IDENTITY)
    assert headers.forwarded(pairs, own=(), keep_credentials=False) == (IDENTITY,)


def test_own_headers_replace_the_clients():
    """A header that a setting gives stands once, and no Connection header can remove it."""
    pairs = ((b"x-team", b"a"), (b"x-team", b"b"), (b"connection", b"x-team"), (b"accept-encoding", b"gzip"))
    sent = headers.forwarded(pairs, own=((b"x-team", b"ours"),), keep_credentials=True)
    assert sent == ((b"accept-encoding", b"gzip"), (b"x-team", b"ours"))


def test_own_accept_encoding_is_enough():
    """No second accept-encoding is added to one that a setting gives."""
    own = ((b"accept-encoding", b"br"),)
    assert headers.forwarded((), own=own, keep_credentials=True) == own


@pytest.mark.parametrize(
    ("status", "more", "kept"),
    [
        (200, [], True),
        (206, [], True),
        (204, [], False),
        (304, [], False),
        (200, [(b"Transfer-Encoding", b"chunked")], False),
    ],
)
def test_response_length_is_kept_where_it_is_true(status, more, kept):
    """A response's content-length goes on unless there is no body or chunked overruled it."""
    assert bool(headers.returned([(b"Content-Length", b"5"), *more], status)) is kept


@pytest.mark.parametrize(
    ("pairs", "length"),
    [
        ([], None),
        ([(b"content-length", b"5")], 5),
        ([(b"content-length", b"0")], 0),
        ([(b"content-length", b"5"), (b"content-length", b"5")], 5),
        ([(b"content-length", b"5"), (b"content-length", b"6")], None),
        ([(b"content-length", b"5, 5")], None),
        ([(b"content-length", b"-5")], None),
        ([(b"content-length", b"+5")], None),
        ([(b"content-length", b"")], None),
        ([(b"content-length", b"9" * 30)], None),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], None),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"gzip, chunked")], None),
    ],
)
def test_declared_length_is_read_only_where_it_is_clear(pairs, length):
    """An ambiguous content-length counts as none: repeated with two values, no number, beside chunked."""
    assert headers.declared_length(tuple(pairs)) == length


@pytest.mark.parametrize(
    ("value", "media"),
    [
        (b"Text/Event-Stream; charset=utf-8", b"text/event-stream"),
        (b" application/json ", b"application/json"),
        (b"", b""),
    ],
)
def test_media_type_is_read_without_parameters(value, media):
    """Case, blanks and parameters do not matter."""
    assert headers.media_type([(b"content-type", value)]) == media
    assert headers.media_type([]) == b""


@pytest.mark.parametrize(
    ("values", "encoded"),
    [([], False), ([b"identity"], False), ([b""], False), ([b"gzip"], True), ([b"identity", b"BR"], True)],
)
def test_encoded_body_is_known(values, encoded):
    """Anything but identity is an encoding."""
    assert headers.is_encoded([(b"content-encoding", value) for value in values]) is encoded


def test_new_json_body_sheds_what_described_the_old():
    """Digests, encoding and type of the client's bytes do not go with a body written anew."""
    old = (
        (b"content-type", b"text/plain"),
        (b"content-encoding", b"identity"),
        (b"content-digest", b"sha-256=:x:"),
        (b"digest", b"x"),
        (b"content-md5", b"x"),
        (b"x-kept", b"1"),
    )
    assert headers.with_json_body(old) == ((b"x-kept", b"1"), (b"content-type", b"application/json"))


def test_snapshot_does_not_follow_its_source():
    """A trailer that a server appends to its list later is not in the copy."""
    source = [(b"X-One", b"1")]
    copy = headers.snapshot(source)
    source.append((b"authorization", b"Bearer evil"))
    assert copy == ((b"x-one", b"1"),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("x y", "x"),
        ("x\n", "x"),
        ("é", "x"),
        ("x:", "x"),
        ("x", "a\r\nb: c"),
        ("x", "\x7f"),
        ("x", "€"),
        ("x", 5),
        ("x", None),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "5"),
        ("Connection", "close"),
    ],
)
def test_wrong_header_setting_is_an_error(name, value):
    """Nothing can be set that would break the request apart."""
    with pytest.raises(ValueError, match=r"header|value|connection"):
        headers.encode({name: value})


def test_header_settings_are_encoded():
    """Names are lower case on the wire, values Latin-1."""
    assert headers.encode({"X-Team_1": " café ", "Host": "h"}) == ((b"x-team_1", b"caf\xe9"), (b"host", b"h"))


@pytest.mark.parametrize("key", ["sk-1\n", "sk 1", "clé", "\x00"])
def test_wrong_api_key_is_an_error_that_does_not_show_it(key):
    """A key with a stray newline is refused at once, and not printed."""
    with pytest.raises(ValueError, match="API key") as caught:
        headers.bearer(key)
    assert key not in str(caught.value)
