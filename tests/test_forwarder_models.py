"""The forwarder with a model_list, over real sockets and with the official client."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import httpx
import httpx2
import openai
import orjson
import pytest

from asgi_llm_gate.forms import FormParser
from asgi_llm_gate.forwarder import Forwarder
from tests.multipart import TYPE, File, fields, form, part
from tests.test_forms import starlette_reads
from tests.test_forwarder_sockets import body, read, served, start

pytestmark = pytest.mark.anyio

LIMIT = 1_000


@pytest.fixture
def anyio_backend():
    """Uvicorn and the official client are run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


class Upstream:
    """A server with OpenAI's chat endpoint, which says what it was sent."""

    def __init__(self):
        self.calls = []

    async def __call__(self, scope, receive, send):
        raw = await read(receive)
        self.calls.append((scope["path"], dict(scope["headers"]), raw))
        data = orjson.loads(raw) if raw.startswith(b"{") else {}
        if data.get("stream") is True:
            await self.stream(data["model"], send)
        else:
            message = {"role": "assistant", "content": "Hello there"}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            answer = self.answer("chat.completion", data.get("model"), choice)
            await start(send, headers=[(b"content-type", b"application/json")])
            await body(send, orjson.dumps(answer), more=False)

    async def stream(self, model, send):
        await start(send, headers=[(b"content-type", b"text/event-stream")])
        for text in ("Hello", " there", None):
            delta = {} if text is None else {"role": "assistant", "content": text}
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if text is None else None}
            event = self.answer("chat.completion.chunk", model, choice)
            await body(send, b"data: " + orjson.dumps(event) + b"\n\n")
        await body(send, b"data: [DONE]\n\n", more=False)

    def answer(self, kind, model, choice):
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model, "choices": [choice]}


@asynccontextmanager
async def routed(*entries, http="h11", **settings):
    """Serve an upstream and a forwarder with entries that name it ``{url}``; give both and a client."""
    upstream = Upstream()
    async with served(upstream, lifespan="off") as url:
        model_list = [
            {
                "model_name": name,
                "litellm_params": {
                    key: value.format(url=url) if isinstance(value, str) else value for key, value in params.items()
                },
            }
            for name, params in entries
        ]
        app = Forwarder(model_list=model_list, max_body_bytes=LIMIT, **settings)
        async with (
            served(app, http=http) as front,
            httpx.AsyncClient(base_url=front, trust_env=False, timeout=20) as client,
        ):
            with anyio.fail_after(30):
                yield upstream, client


GPT = ("gpt", {"model": "openai/gpt-4o", "api_base": "{url}/v1", "api_key": "sk-own"})
LLAMA = ("llama-*", {"model": "openai/meta/llama-*", "api_base": "{url}/llama/v1"})


@asynccontextmanager
async def official(front):
    transport = httpx2.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=front.join("/v1"), api_key="sk-client", max_retries=0, http_client=transport
    ) as client:
        yield client


async def test_official_client_unstreamed():
    """The official client gets a strict-valid answer, under the upstream's own model and key."""
    async with routed(GPT, LLAMA) as (upstream, client), official(client.base_url) as ai:
        answer = await ai.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == "Hello there"
    assert answer.model == "gpt-4o"
    ((path, headers, _),) = upstream.calls
    assert path == "/v1/chat/completions"
    assert headers[b"authorization"] == b"Bearer sk-own"


async def test_official_client_streamed():
    """The official client reads a stream to its end; a pattern's star is filled, no key is passed on."""
    async with routed(GPT, LLAMA) as (upstream, client), official(client.base_url) as ai:
        stream = await ai.chat.completions.create(model="llama-3", messages=[], stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
    assert {chunk.model for chunk in chunks} == {"meta/llama-3"}
    ((path, headers, _),) = upstream.calls
    assert path == "/llama/v1/chat/completions"
    assert b"authorization" not in headers


async def test_official_client_meets_an_unknown_model():
    """An unknown model is the client's own NotFoundError, with code and param."""
    async with routed(GPT) as (upstream, client), official(client.base_url) as ai:
        with pytest.raises(openai.NotFoundError, match="`nosuch`") as caught:
            await ai.chat.completions.create(model="nosuch", messages=[])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert upstream.calls == []


async def test_official_client_lists_models():
    """Names, not patterns, are listed; a single model is found by name or pattern."""
    async with routed(GPT, LLAMA) as (_, client), official(client.base_url) as ai:
        assert [model.id async for model in ai.models.list()] == ["gpt"]
        assert (await ai.models.retrieve("llama-7")).id == "llama-7"
        with pytest.raises(openai.NotFoundError):
            await ai.models.retrieve("nosuch")
        assert (await client.get("/models/")).json()["data"][0]["object"] == "model"
        assert (await client.head("/v1/models")).status_code == 200


async def test_body_is_written_anew():
    """Only the model changes; length and type are those of the new body, and digests do not go on."""
    sent = b'{"model": "gpt",\n "seed": 1.0, "user": "\\u00e9", "user": "z"}'
    headers = {
        "content-digest": "sha-256=:x:",
        "content-type": "application/x-www-form-urlencoded",
        "cookie": "a=1",
    }
    async with routed(GPT) as (upstream, client):
        assert (await client.post("/chat/completions", content=sent, headers=headers)).status_code == 200
    ((path, got, raw),) = upstream.calls
    assert path == "/v1/chat/completions"
    assert raw == b'{"model":"gpt-4o","seed":1.0,"user":"z"}'
    assert got[b"content-length"] == b"%d" % len(raw)
    assert got[b"content-type"] == b"application/json"
    assert not {b"content-digest", b"cookie"} & set(got)


JSON = "application/json"
DEEP = b'{"model":"gpt","x":' + b"[" * 300 + b"]" * 300 + b"}"


@pytest.mark.parametrize(
    ("content", "headers", "status", "param", "code"),
    [
        (b'{"messages":[]}', {}, 400, "model", None),
        (b'{"model":null}', {}, 400, "model", None),
        (b'{"model":""}', {}, 400, "model", None),
        (b'{"model":["gpt"]}', {}, 400, "model", None),
        (b'{"model":"' + b"x" * 300 + b'"}', {}, 404, "model", "model_not_found"),
        (b'{"model":"gpt",}', {}, 400, None, "invalid_json"),
        (b'["gpt"]', {}, 400, None, "invalid_json"),
        (b'\xef\xbb\xbf{"model":"gpt"}', {}, 400, None, "invalid_json"),
        (DEEP, {}, 400, None, "invalid_json"),
        (b"\x1f\x8b", {"content-encoding": "gzip"}, 415, None, "unsupported_content_encoding"),
        (b" " * (LIMIT + 1), {}, 413, None, "request_too_large"),
    ],
)
async def test_body_that_cannot_be_routed_is_refused(content, headers, status, param, code):
    """What names no model, or is no JSON object, reaches no upstream."""
    async with routed(GPT, LLAMA) as (upstream, client):
        response = await client.post("/v1/x", content=content, headers={"content-type": JSON, **headers})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)
    assert len(error["message"]) < 300
    assert upstream.calls == []


async def test_body_of_undeclared_length_is_limited_too():
    """The limit counts what comes, in chunks as well."""

    async def upload():
        for _ in range(LIMIT):
            yield b"  "

    async with routed(GPT) as (upstream, client):
        response = await client.post("/v1/x", content=upload())
    assert response.status_code == 413
    assert upstream.calls == []


OTHER = ("other", {"model": "m", "api_base": "{url}/other/v1"})
SAME = ("same", {"model": "m", "api_base": "{url}/v1", "api_key": "sk-own", "timeout": 5})


@pytest.mark.parametrize(("second", "status"), [(SAME, 200), (OTHER, 400)])
@pytest.mark.parametrize(
    ("method", "content", "media"),
    [
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("POST", b"", None),
        ("PUT", b"\x00", "application/octet-stream"),
    ],
)
async def test_call_without_json_goes_to_the_only_upstream(second, status, method, content, media):
    """Files and empty bodies go on unread where all entries share one upstream, else nowhere."""
    headers = {} if media is None else {"content-type": media}
    async with routed(GPT, second) as (upstream, client):
        response = await client.request(method, "/v1/files/f", content=content, headers=headers)
    assert response.status_code == status
    if status == 200:
        ((path, got, raw),) = upstream.calls
        assert (path, raw, got[b"authorization"]) == ("/v1/files/f", content, b"Bearer sk-own")
    else:
        assert upstream.calls == []


LARGE = bytes(range(256)) * 8_192
FIELDS = {"model": "gpt", "language": "en", "stream": "true"}


def sent_as_form(content, content_type):
    """The fields and the file of a form, as Starlette reads it."""
    return starlette_reads({"type": "http", "headers": [(b"content-type", content_type)]}, content)


async def test_a_form_goes_to_the_upstream_of_its_model():
    """Under the model's name there; its other fields and its file as they were, also those of the official client."""
    async with routed(OTHER, GPT, max_upload_bytes=3_000_000) as (upstream, client):
        done = await client.post("/v1/audio/transcriptions", data=FIELDS, files={"file": ("a.wav", LARGE, "audio/wav")})
        async with official(client.base_url) as own:
            await own.audio.transcriptions.create(model="other", file=("b.wav", b"RIFF"), response_format="text")
    assert done.status_code == 200
    (path, headers, raw), (other_path, other_headers, other_raw) = upstream.calls
    assert (path, other_path) == ("/v1/audio/transcriptions", "/other/v1/audio/transcriptions")
    assert int(headers[b"content-length"]) == len(raw)
    file = ("file", File("a.wav", "audio/wav", LARGE))
    assert await sent_as_form(raw, headers[b"content-type"]) == [*{**FIELDS, "model": "gpt-4o"}.items(), file]
    found = dict(await sent_as_form(other_raw, other_headers[b"content-type"]))
    assert (found["model"], found["file"].content) == ("m", b"RIFF")


async def test_a_form_without_a_model_goes_to_the_only_upstream():
    """As all else that names none."""
    async with routed(GPT, SAME) as (upstream, client):
        done = await client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}")})
    assert done.status_code == 200
    ((path, headers, raw),) = upstream.calls
    assert path == "/v1/files"
    assert [name for name, _ in await sent_as_form(raw, headers[b"content-type"])] == ["purpose", "file"]


REFUSED_FORMS = {
    "no model": ({}, form(part('name="a"', "b")), 400, "A model is required"),
    "an unknown model": ({}, fields(model="x"), 404, "`x` does not exist"),
    "two models": ({}, form(part('name="model"', "gpt"), part('name="model"', "other")), 400, "model"),
    "no end": ({}, b"--b\r\n", 400, "closing boundary"),
    "no boundary": ({"content-type": "multipart/form-data"}, b"", 400, "boundary"),
    "compressed": ({"content-encoding": "gzip"}, b"", 415, "compressed"),
    "fields that are too large": ({}, fields(model="gpt", prompt="x" * LIMIT), 413, str(LIMIT)),
    "a form that is too large": ({}, form(part('name="f"; filename="f"', bytes(3 * LIMIT))), 413, str(2 * LIMIT)),
}


@pytest.mark.parametrize(("headers", "content", "status", "told"), REFUSED_FORMS.values(), ids=REFUSED_FORMS)
async def test_forms_that_go_nowhere(headers, content, status, told):
    """With an error that says why, and nothing is sent to an upstream."""
    async with routed(GPT, OTHER, max_upload_bytes=2 * LIMIT) as (upstream, client):
        refused = await client.post("/v1/images/edits", content=content, headers={"content-type": TYPE, **headers})
    assert (refused.status_code, upstream.calls) == (status, [])
    assert told in refused.json()["error"]["message"]


async def test_files_of_a_form_are_closed(monkeypatch):
    """Once the call is over, and where the form is refused."""
    closed = []
    monkeypatch.setattr(FormParser, "discard", lambda self: closed.append(self.spool.close()))
    async with routed(GPT, OTHER) as (upstream, client):
        for model in ("gpt", "x"):
            await client.post("/v1/images/edits", data={"model": model}, files={"image": ("a.png", LARGE)})
    assert (len(closed), len(upstream.calls)) == (2, 1)


async def test_entries_of_one_name_share_the_load():
    """Calls for a name go to its entries in turn."""
    async with routed(("gpt", OTHER[1]), GPT) as (upstream, client):
        for _ in range(4):
            await client.post("/v1/embeddings", json={"model": "gpt"})
    assert [path for path, _, _ in upstream.calls] == ["/other/v1/embeddings", "/v1/embeddings"] * 2


async def test_headers_for_every_entry_and_for_one():
    """The forwarder's headers are set on each call, an entry's own above them."""
    own = ("own", {**GPT[1], "extra_headers": {"X-Team": "entry"}})
    async with routed(GPT, own, headers={"x-team": "all", "x-app": "1"}) as (upstream, client):
        for name in ("gpt", "own"):
            await client.post("/v1/x", json={"model": name}, headers={"x-team": "client"})
    teams = [(headers[b"x-team"], headers[b"x-app"]) for _, headers, _ in upstream.calls]
    assert teams == [(b"all", b"1"), (b"entry", b"1")]


async def test_client_that_leaves_while_sending_json_makes_no_call():
    """Half a JSON body is dropped without an answer."""
    async with routed(GPT) as (upstream, client):
        stream = await anyio.connect_tcp("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send(b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 99\r\n\r\n{")
            await stream.send_eof()
            assert b"".join([chunk async for chunk in stream]) == b""
    assert upstream.calls == []


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_trailers_do_not_become_headers(http):
    """A request's trailers, which httptools' protocol adds to the scope's headers late, go nowhere."""
    async with routed(LLAMA, http=http) as (upstream, client):
        stream = await anyio.connect_tcp("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send(
                b"POST /v1/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n"
                b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
            )
            # The body is asked for, so the app has begun.
            assert (await stream.receive()).startswith(b"HTTP/1.1 100")
            await stream.send(b'13\r\n{"model":"llama-3"}\r\n0\r\nx-evil: 1\r\n\r\n')
            raw = b"".join([chunk async for chunk in stream])
    assert raw.startswith(b"HTTP/1.1 200")
    ((_, headers, _),) = upstream.calls
    assert b"x-evil" not in headers
