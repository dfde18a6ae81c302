"""What a hook or an app raises becomes one envelope that official clients read, or is a crash that tells nothing."""

from __future__ import annotations

from http import HTTPStatus
from types import SimpleNamespace

import fastapi
import httpx
import httpx2
import openai
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate.errors import (
    GateError,
    Rejection,
    UpstreamError,
    error_answer,
    error_type,
    intended,
    internal_error,
    new_request_id,
)


class Meant(Exception):
    """An error of somebody's own, told by its attributes."""

    def __init__(self, text="", **attributes):
        super().__init__(text)
        vars(self).update(attributes)


def envelope(exc, request_id="req_1"):
    answer = error_answer(intended(exc), request_id)
    assert answer.media_type == b"application/json"
    content = orjson.loads(answer.body)
    assert list(content) == ["error"]
    assert set(content["error"]) == {"message", "type", "param", "code"}
    return answer.status, content["error"], dict(answer.headers)


def openai_error(kind=openai.BadRequestError, status=400, headers=None, body=None):
    request = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")
    response = httpx2.Response(status, headers=headers, request=request)
    return kind("Error code: 400 - too long", response=response, body=body)


STATUS_TYPES = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (403, "permission_error"),
    (404, "invalid_request_error"),
    (429, "rate_limit_error"),
    (451, "invalid_request_error"),
    (499, "invalid_request_error"),
    (500, "internal_server_error"),
    (599, "internal_server_error"),
]


@pytest.mark.parametrize(("status", "type"), STATUS_TYPES)
def test_the_type_follows_from_the_status(status, type):
    assert error_type(status) == type
    assert GateError(status, "no").type == type
    assert envelope(fastapi.HTTPException(status, "no"))[1]["type"] == type


# The detail of an HTTPException, and the message, type, param and code that a client reads.
DETAILS = [
    ("a text", "plain detail", ("plain detail", "invalid_request_error", None, "400")),
    ("the seed's", {"error": "Violated content safety policy"}, ("Violated content safety policy", None, None, "400")),
    ("more beside it", {"error": "slow down", "extra": 1}, ("slow down", None, None, "400")),
    ("a message", {"message": "no"}, ("no", None, None, "400")),
    ("an error before a message", {"error": "this", "message": "that"}, ("this", None, None, "400")),
    (
        "OpenAI's envelope",
        {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}},
        ("no", "t", "p", "c"),
    ),
    ("an int code", {"error": {"message": "no", "code": 7}}, ("no", None, None, "7")),
    ("a bool is no code", {"error": {"message": "no", "code": True}}, ("no", None, None, "400")),
    ("flat fields", {"message": "no", "type": "t", "param": "p", "code": "c"}, ("no", "t", "p", "c")),
    ("an error beside fields", {"error": "no", "param": "p"}, ("no", None, "p", "400")),
    ("another mapping", {"reason": ["a", None, True]}, ('{"reason":["a",null,true]}', None, None, "400")),
    ("what JSON can't say", {"at": SimpleNamespace}, (f'{{"at":"{SimpleNamespace}"}}', None, None, "400")),
    ("an error that is a list", {"error": ["a"]}, ('{"error":["a"]}', None, None, "400")),
    ("an envelope without message", {"error": {"code": "c"}}, ("The request was refused", None, None, "c")),
    ("an empty message", {"error": {"message": ""}}, ("The request was refused", None, None, "400")),
    ("a number", 42, ("42", None, None, "400")),
    ("a list", ["a", {"b": 1}], ('["a",{"b":1}]', None, None, "400")),
    ("keys that are numbers", {1: "x"}, ('{"1":"x"}', None, None, "400")),
    ("what JSON can't say at all", ["\ud800"], ("The request was refused", None, None, "400")),
    ("half a surrogate pair", "no \ud800", ("no ?", None, None, "400")),
    ("an empty text", "", ("The request was refused", None, None, "400")),
    ("an empty mapping", {}, ("The request was refused", None, None, "400")),
    ("an empty list", [], ("The request was refused", None, None, "400")),
]


@pytest.mark.parametrize("kind", [fastapi.HTTPException, HTTPException], ids=["fastapi", "starlette"])
@pytest.mark.parametrize(("detail", "expected"), [row[1:] for row in DETAILS], ids=[row[0] for row in DETAILS])
def test_a_detail_becomes_the_message(detail, expected, kind):
    """Of a mapping its `error` or `message` text, else JSON: never a Python repr."""
    message, kind_of, param, code = expected
    status, error, _ = envelope(kind(400, detail))
    assert status == 400
    assert error == {"message": message, "type": kind_of or "invalid_request_error", "param": param, "code": code}


MEANT = [
    ("a status alone", Meant(status_code=418), (418, "The request was refused", "418")),
    ("its text", Meant("short and stout", status_code=418), (418, "short and stout", "418")),
    ("a message attribute", Meant("text", status_code=402, message="pay"), (402, "pay", "402")),
    ("a detail before a message", Meant(status_code=402, message="m", detail="d"), (402, "d", "402")),
    ("an enum's status", Meant("gone", status_code=HTTPStatus.GONE), (410, "gone", "410")),
    ("its own code", Meant("no", status_code=400, code="own"), (400, "no", "own")),
    ("a server's fault", Meant("down", status_code=503), (503, "down", "503")),
]


@pytest.mark.parametrize(("exc", "expected"), [row[1:] for row in MEANT], ids=[row[0] for row in MEANT])
def test_anything_with_a_status_code_is_meant(exc, expected):
    status, error, _ = envelope(exc)
    assert (status, error["message"], error["code"]) == expected


def test_an_exceptions_own_type_and_param_are_kept():
    _, error, _ = envelope(Meant("no", status_code=400, type="own_type", param="model"))
    assert (error["type"], error["param"]) == ("own_type", "model")


def test_a_meant_error_stays_itself():
    error = GateError(409, "taken", param="id", code="taken", headers={"retry-after": "1"})
    assert intended(error) is error
    assert str(error) == "taken"


CRASHES = [
    ValueError("secret"),
    KeyError("messages"),
    TimeoutError(),
    Rejection("a message is no HTTP error"),
    Meant(status_code="400"),
    Meant(status_code=None),
    Meant(status_code=200),
    Meant(status_code=399),
    Meant(status_code=600),
    Meant(status_code=True),
    httpx.ReadTimeout("secret"),
]


@pytest.mark.parametrize("exc", CRASHES, ids=repr)
def test_all_else_is_a_crash(exc):
    assert intended(exc) is None


def test_an_internal_error_tells_nothing():
    status, error, _ = envelope(internal_error())
    assert status == 500
    assert error == {
        "message": "Internal server error",
        "type": "internal_server_error",
        "param": None,
        "code": "internal_error",
    }


def test_an_error_of_openais_client_keeps_status_fields_and_headers():
    """A hook that calls a model itself may let the client's exception go on."""
    body = {"message": "too long", "type": "invalid_request_error", "param": "messages", "code": "context_length"}
    exc = openai_error(headers={"x-ratelimit-remaining-requests": "9", "x-request-id": "req_up"}, body=body)
    status, error, headers = envelope(exc)
    assert status == 400
    assert error == {
        "message": "Error code: 400 - too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length",
    }
    assert headers[b"x-ratelimit-remaining-requests"] == b"9"
    assert headers[b"x-request-id"] == b"req_up"


def test_headers_of_an_exception_go_out_but_not_those_that_frame_its_own_body():
    sent = {
        "Retry-After": "7",
        "WWW-Authenticate": "Bearer",
        "Content-Length": "3",
        "content-type": "text/plain",
        "Content-Encoding": "gzip",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
    }
    _, _, headers = envelope(HTTPException(429, "slow down", headers=sent))
    assert headers == {b"x-request-id": b"req_1", b"retry-after": b"7", b"www-authenticate": b"Bearer"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "a"),
        ("a b", "a"),
        ("a:b", "a"),
        ("x-split", "a\r\nset-cookie: b"),
        ("x\r\ny", "a"),
        ("x-null", "a\0b"),
        ("x-ünï", "a"),
        ("x-snow", "\u2603"),
    ],
)
def test_no_header_can_split_a_response(name, value):
    _, _, headers = envelope(HTTPException(400, "no", headers={name: value}))
    assert headers == {b"x-request-id": b"req_1"}


def test_headers_that_are_no_mapping_are_passed_over():
    assert envelope(Meant("no", status_code=400, headers=["x"]))[2] == {b"x-request-id": b"req_1"}


def test_space_around_a_header_is_taken_off():
    assert envelope(Meant("no", status_code=400, headers={"x-a": " b c "}))[2][b"x-a"] == b"b c"


def test_numbers_in_headers_are_written_out():
    assert envelope(Meant("no", status_code=429, headers={"retry-after": 7}))[2][b"retry-after"] == b"7"


def test_each_answer_has_a_request_id():
    (name, value), *rest = error_answer(internal_error()).headers
    assert (name, rest) == (b"x-request-id", [])
    assert value.startswith(b"req_")
    assert new_request_id() != new_request_id()


# An app's error body as it is seen on the wire, and the message, type, param and code a failure hook reads.
UPSTREAM = [
    (
        "OpenAI's",
        b'{"error":{"message":"m","type":"t","param":"p","code":"c"}}',
        ("m", "t", "p", "c"),
    ),
    ("nulls", b'{"error":{"message":"m","type":"t","param":null,"code":null}}', ("m", "t", None, None)),
    ("OpenRouter's int code", b'{"error":{"message":"m","code":402}}', ("m", None, None, "402")),
    ("xAI's", b'{"code":"c","error":"m"}', ("m", None, None, "c")),
    ("flat", b'{"object":"error","message":"m","type":"t"}', ("m", "t", None, None)),
    ("Mistral's", b'{"detail":"m"}', ('{"detail":"m"}', None, None, None)),
    ("a list", b'["m"]', (None, None, None, None)),
    ("HTML", b"<html>", (None, None, None, None)),
    ("nothing", b"", (None, None, None, None)),
    ("not UTF-8", b'{"error":"\xff"}', (None, None, None, None)),
]


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in UPSTREAM], ids=[row[0] for row in UPSTREAM])
def test_an_apps_error_is_read_whatever_its_shape(body, expected):
    error = UpstreamError(402, body, {"retry-after": "1"})
    message, kind_of, param, code = expected
    assert error.message == (message or "The app answered with status 402")
    assert (error.type, error.param, error.code) == (kind_of or "invalid_request_error", param, code)
    assert (error.status_code, error.body, error.headers) == (402, body, {"retry-after": "1"})
