"""OpenAI's official client, at its strictest, before a served gate: every refusal is one that it understands."""

from __future__ import annotations

import httpx2
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import Upstream, answer
from tests.hosts import Witness
from tests.servers import Switch, serve

NO = 'I can\'t do that \u2013 \u201cnie\u201d, 🦊\u2028\n"quoted" \\ </script> \x7f'

COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hello","refusal":null},"logprobs":null,"finish_reason":"stop"}]}'
)

MESSAGES = [{"role": "user", "content": "Hi"}]


class Says(CallHooks):
    """Refuses every call with what it was made with: a string or an exception, returned or raised."""

    def __init__(self, verdict):
        self.verdict = verdict


class Returns(Says):
    async def async_pre_call_hook(self, data):
        return self.verdict


class Raises(Says):
    async def async_pre_call_hook(self, data):
        raise self.verdict


class ReturnsLate(Says):
    async def async_moderation_hook(self, data):
        return self.verdict


class RaisesLate(Says):
    async def async_moderation_hook(self, data):
        raise self.verdict


@pytest.fixture(scope="module")
def switch():
    return Switch()


@pytest.fixture(scope="module")
def client(switch):
    with (
        serve(switch, lifespan="off") as url,
        OpenAI(
            base_url=f"{url}/v1", api_key="sk-x", max_retries=0, timeout=20, _strict_response_validation=True
        ) as client,
    ):
        yield client


@pytest.fixture
def connect(switch, client):
    """Serve a gate with these callbacks and settings, and give a client of it."""

    def connect(*callbacks, app=None, **settings):
        switch.app = LLMGate(app or Upstream(answer(COMPLETION)), callbacks=list(callbacks), **settings)
        return client

    return connect


refusing = pytest.mark.parametrize("hook", [Returns, ReturnsLate])


@refusing
@pytest.mark.parametrize("n", [None, 1, 3])
def test_chat(connect, hook, n):
    """A refused chat is a completion in which each of the `n` choices says the message, word for word."""
    client = connect(hook(NO))
    completion = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **({"n": n} if n else {}))
    assert [choice.message.content for choice in completion.choices] == [NO] * (n or 1)
    assert [choice.index for choice in completion.choices] == list(range(n or 1))
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}
    assert (completion.model, completion.object) == ("gpt-4o", "chat.completion")
    assert completion.usage.total_tokens == 0
    assert completion._request_id


@refusing
@pytest.mark.parametrize("usage", [None, False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_chat_stream(connect, hook, n, usage):
    """Streamed, each choice is opened, says the message and is finished; usage comes last, and only if asked for."""
    options = {} if usage is None else {"stream_options": {"include_usage": usage}}
    stream = connect(hook(NO)).chat.completions.create(model="m", messages=MESSAGES, n=n, stream=True, **options)
    chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    said = [[choice for chunk in chunks for choice in chunk.choices if choice.index == index] for index in range(n)]
    assert ["".join(choice.delta.content or "" for choice in choices) for choices in said] == [NO] * n
    assert [[choice.finish_reason for choice in choices] for choices in said] == [[None, None, "stop"]] * n
    assert [choices[0].delta.role for choices in said] == ["assistant"] * n
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [0] * bool(usage)
    assert (chunks[-1].choices == []) is bool(usage)


@refusing
@pytest.mark.parametrize("n", [1, 3])
def test_chat_stream_helper(connect, hook, n):
    """The client's own helper puts the stream together to the same completion."""
    with connect(hook(NO)).chat.completions.stream(model="m", messages=MESSAGES, n=n) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [NO] * n
    assert kinds.count("content.done") == n


@refusing
def test_parse_helper(connect, hook):
    """`parse` without a response format reads the refusal as any completion."""
    completion = connect(hook(NO)).chat.completions.parse(model="m", messages=MESSAGES)
    assert completion.choices[0].message.content == NO


class Fox(BaseModel):
    """A format that a client asks its answers to be in."""

    name: str


@refusing
def test_raw_response_with_a_format(connect, hook):
    """Where an answer must be in a format, the message is there to be read raw."""
    raw = connect(hook(NO)).chat.completions.with_raw_response.parse(model="m", messages=MESSAGES, response_format=Fox)
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.http_response.json()["choices"][0]["message"]["content"] == NO


@refusing
@pytest.mark.parametrize(
    ("prompt", "n", "choices"),
    [
        ("one", None, 1),
        ("one", 2, 2),
        (["one"], None, 1),
        (["one", "two"], None, 2),
        (["one", "two"], 3, 6),
        ([1, 2, 3], None, 1),
        ([1, 2, 3], 2, 2),
        ([[1, 2], [3]], 2, 4),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_text(connect, hook, prompt, n, choices, stream):
    """A refused text completion has `n` choices for each prompt; token ids are one prompt."""
    options = {"n": n} if n else {}
    client = connect(hook(NO))
    answer = client.completions.create(model="m", prompt=prompt, stream=stream, **options)
    parts = [choice for chunk in answer for choice in chunk.choices] if stream else answer.choices
    assert [(part.index, part.text, part.finish_reason) for part in parts] == [
        (index, NO, "stop") for index in range(choices)
    ]


def test_text_stream_with_usage(connect):
    """A usage chunk without choices ends the stream if it was asked for."""
    stream = connect(Returns(NO)).completions.create(
        model="m", prompt="x", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [len(chunk.choices) for chunk in chunks] == [1, 0]
    assert chunks[-1].usage.total_tokens == 0


ELSEWHERE = {
    "embeddings": lambda client: client.embeddings.create(model="m", input="x"),
    "moderations": lambda client: client.moderations.create(input="x"),
    "images": lambda client: client.images.generate(prompt="x"),
}

elsewhere = pytest.mark.parametrize("create", ELSEWHERE.values(), ids=ELSEWHERE)


@refusing
@elsewhere
def test_elsewhere_a_string_is_an_error(connect, hook, create):
    """An endpoint with no text to say it in raises `BadRequestError`, the message exactly the hook's."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(connect(hook(NO)))
    assert caught.value.body["message"] == NO
    assert (caught.value.code, caught.value.type) == ("content_policy_violation", "invalid_request_error")
    assert caught.value.request_id


STATUSES = [
    (400, openai.BadRequestError, "invalid_request_error"),
    (401, openai.AuthenticationError, "authentication_error"),
    (403, openai.PermissionDeniedError, "permission_error"),
    (404, openai.NotFoundError, "invalid_request_error"),
    (409, openai.ConflictError, "invalid_request_error"),
    (413, openai.APIStatusError, "invalid_request_error"),
    (422, openai.UnprocessableEntityError, "invalid_request_error"),
    (429, openai.RateLimitError, "rate_limit_error"),
    (451, openai.APIStatusError, "invalid_request_error"),
    (500, openai.InternalServerError, "internal_server_error"),
    (503, openai.InternalServerError, "internal_server_error"),
    (599, openai.InternalServerError, "internal_server_error"),
]


@pytest.mark.parametrize("hook", [Raises, RaisesLate, Returns, ReturnsLate])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "kind", "type"), STATUSES)
def test_httpexceptions(connect, hook, stream, status, kind, type):
    """An HTTPException, raised or returned, is the client's exception of that status, also before a stream."""
    client = connect(hook(HTTPException(status, {"error": NO}, {"retry-after": "3"})))
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
    error = caught.value
    assert error.status_code == status
    assert (error.body["message"], error.type, error.code, error.param) == (NO, type, str(status), None)
    assert error.response.headers["retry-after"] == "3"
    assert error.request_id.startswith("req_")


@elsewhere
@pytest.mark.parametrize(("status", "kind", "type"), STATUSES)
def test_httpexceptions_elsewhere(connect, create, status, kind, type):
    """The envelope is the same on every endpoint."""
    with pytest.raises(kind) as caught:
        create(connect(Raises(HTTPException(status, "no"))))
    assert (caught.value.body["message"], caught.value.type) == ("no", type)


def test_detail_with_every_field(connect):
    """A detail in OpenAI's own form fills code, param and type."""
    detail = {"error": {"message": "no", "type": "policy", "param": "messages", "code": "blocked"}}
    with pytest.raises(openai.BadRequestError) as caught:
        connect(Raises(HTTPException(400, detail))).chat.completions.create(model="m", messages=MESSAGES)
    error = caught.value
    assert (error.body["message"], error.type, error.param, error.code) == ("no", "policy", "messages", "blocked")


def test_error_of_another_server(connect):
    """An APIStatusError of the client itself, from a hook that asked another server, is told with that server's id."""
    request = httpx2.Request("POST", "http://other.example")
    headers = {"x-request-id": "req_other", "content-length": "2", "set-cookie": "a=1"}
    error = openai.RateLimitError(
        "slow down",
        response=httpx2.Response(429, headers=headers, request=request),
        body={"code": "rate_limit_exceeded", "param": None, "type": "requests"},
    )
    with pytest.raises(openai.RateLimitError) as caught:
        connect(Raises(error)).chat.completions.create(model="m", messages=MESSAGES)
    assert (caught.value.body["message"], caught.value.code) == ("slow down", "rate_limit_exceeded")
    assert caught.value.type == "requests"
    assert len(caught.value.response.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("hook", [Raises, RaisesLate, Returns, ReturnsLate])
def test_crash_tells_nothing(connect, hook, caplog):
    """A hook that crashes is an `InternalServerError` without a word of what went wrong, which the log has."""
    with pytest.raises(openai.InternalServerError) as caught:
        connect(hook(RuntimeError("secret"))).chat.completions.create(model="m", messages=MESSAGES)
    assert caught.value.body["message"] == "Internal server error"
    assert "secret" not in caught.value.response.text
    assert "secret" in caplog.text


def test_upstream_errors_stay(connect):
    """The app's own error is the client's, with its fields and its headers."""
    body = b'{"error":{"message":"gone","type":"t","param":"model","code":"model_not_found"}}'
    app = Upstream(answer(body, 404, headers=[("x-request-id", "req_app")]))
    with pytest.raises(openai.NotFoundError) as caught:
        connect(Witness(), app=app).chat.completions.create(model="m", messages=MESSAGES)
    error = caught.value
    assert (error.type, error.param, error.code, error.request_id) == ("t", "model", "model_not_found", "req_app")


def test_user_is_enforced(connect):
    """Without `user` a call is a `BadRequestError` that names it; with one it is answered."""
    app = Upstream(answer(COMPLETION))
    client = connect(app=app, enforce_user_param=True)
    for create in [
        lambda **fields: client.chat.completions.create(model="m", messages=MESSAGES, **fields),
        lambda **fields: client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **fields),
        lambda **fields: client.completions.create(model="m", prompt="x", **fields),
        lambda **fields: client.embeddings.create(model="m", input="x", **fields),
        lambda **fields: client.images.generate(prompt="x", **fields),
        lambda **fields: client.moderations.create(input="x", extra_body=fields),
    ]:
        for fields in ({}, {"user": ""}, {"user": "\u200b"}):
            with pytest.raises(openai.BadRequestError) as caught:
                create(**fields)
            assert (caught.value.param, caught.value.code) == ("user", "missing_required_parameter")
    assert app.calls == []
    completion = client.chat.completions.create(model="m", messages=MESSAGES, user="u")
    assert completion.choices[0].message.content == "hello"
    client.moderations.with_raw_response.create(input="x", extra_body={"user": "u"})
    assert [b'"user"' in body for _, body in app.calls] == [True, False]


def test_user_of_another_name(connect):
    """`safety_identifier`, the newer field, can stand for the user."""
    app = Upstream(answer(COMPLETION))
    client = connect(app=app, enforce_user_param=True, user_params=["safety_identifier", "user"])
    client.chat.completions.create(model="m", messages=MESSAGES, safety_identifier="s")
    with pytest.raises(openai.BadRequestError, match="safety_identifier"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert len(app.calls) == 1


def test_wrong_key(connect):
    """A key that is not the master key is an `AuthenticationError`."""
    with pytest.raises(openai.AuthenticationError) as caught:
        connect(master_key="sk-other").chat.completions.create(model="m", messages=MESSAGES)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    client = connect(master_key="sk-x")
    assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == "hello"


@pytest.mark.parametrize("choices", [2, 5])
def test_stacked_gates(connect, choices):
    """What an inner gate refuses is an answer like any other to the outer one."""
    inner = LLMGate(Upstream(), callbacks=[Returns(NO)])
    outer = Witness()
    completion = connect(outer, app=inner).chat.completions.create(model="m", messages=MESSAGES, n=choices)
    assert [choice.message.content for choice in completion.choices] == [NO] * choices
    assert outer.responses[0]["choices"][0]["message"]["content"] == NO
