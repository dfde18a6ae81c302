"""Forms of real clients: OpenAI's own before a served gate, and recorded ones."""

from __future__ import annotations

import base64
import io
import wave
from contextlib import contextmanager

import openai
import pytest
from openai import OpenAI
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.form_headers import FORM
from tests.harness import Request, Upstream, answer
from tests.hosts import Reader, Witness
from tests.multipart import TYPE, File, form, part
from tests.servers import serve
from tests.services import missing
from tests.streams import RECORDINGS, all_exchanges, exchanges
from tests.test_forms import starlette_reads

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client's own methods


def wav():
    """A second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(bytes(16_000))
    return file.getvalue()


WAV = wav()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 600

STREAM = (
    b'data: {"type":"transcript.text.delta","delta":"my secret"}\r\n\r\n'
    b'data: {"type":"transcript.text.done","text":"my secret"}\r\n\r\ndata: [DONE]\r\n\r\n'
)


class Model:
    """An app of Starlette's that notes the form of each call, and answers as OpenAI does."""

    def __init__(self):
        self.forms = []
        paths = ("audio/transcriptions", "audio/translations", "images/edits", "images/variations", "files")
        paths += ("uploads", "uploads/{upload}/parts", "uploads/{upload}/complete")
        self.app = Starlette(routes=[Route(f"/v1/{path}", self.answer, methods=["POST"]) for path in paths])

    async def answer(self, request):
        path = request.url.path
        if request.headers["content-type"] == "application/json":
            self.forms.append(await request.json())
        else:
            async with request.form() as form:
                read = [
                    (name, one if isinstance(one, str) else File(one.filename, one.content_type, one.file.read()))
                    for name, one in form.multi_items()
                ]
            self.forms.append(read)
            fields = dict(read)
            if fields.get("stream") == "true":
                return StreamingResponse(iter([STREAM]), media_type="text/event-stream")
            if fields.get("response_format") == "text":
                return PlainTextResponse("my secret\n")
        if "/audio/" in path:
            return JSONResponse({"text": "my secret"})
        if "/images/" in path:
            return JSONResponse({"created": 1, "data": [{"b64_json": "x"}]})
        return JSONResponse({"id": "file-1", "object": "file", "bytes": 1, "created_at": 1, "purpose": "assistants"})

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class Rewrites(CallHooks):
    """Hooks that change the model and what is transcribed."""

    def __init__(self):
        self.files = []

    async def async_pre_call_hook(self, data):
        data["model"] = "other"
        for upload in [value for value in data.values() if hasattr(value, "filename")]:
            self.files.append((upload.filename, upload.size))

    async def async_post_call_success_hook(self, response):
        if "text" in response:
            response.text = response.text.replace("secret", "******")

    async def async_post_call_streaming_hook(self, response):
        return response.replace("secret", "******")


class Refuses(CallHooks):
    async def async_pre_call_hook(self, data):
        return "not this"


@contextmanager
def client_of(app):
    with serve(app, lifespan="off") as url, OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model():
    return Model()


@pytest.fixture(scope="module")
def hooks():
    return Rewrites()


@pytest.fixture(scope="module")
def client(model, hooks):
    with client_of(LLMGate(model, callbacks=[hooks])) as client:
        yield client


@pytest.fixture(scope="module")
def refused():
    with client_of(LLMGate(Upstream(), callbacks=[Refuses()])) as client:
        yield client


def transcribe(client, **options):
    return client.audio.transcriptions.create(model="whisper-1", file=("käse.wav", WAV, "audio/wav"), **options)


def test_transcription(client, model, hooks):
    """The model is the hook's, the file and all else the client's, and the text is the hook's again."""
    answered = transcribe(client, prompt="hi", timestamp_granularities=["word", "segment"], temperature=0.5)
    assert answered.text == "my ******"
    assert hooks.files[-1] == ("käse.wav", len(WAV))
    assert sorted(model.forms[-1], key=str) == sorted(
        [
            ("model", "other"),
            ("prompt", "hi"),
            ("temperature", "0.5"),
            ("timestamp_granularities[]", "word"),
            ("timestamp_granularities[]", "segment"),
            ("file", File("käse.wav", "audio/wav", WAV)),
        ],
        key=str,
    )


def test_transcription_as_text(client):
    """A bare text is the hook's too."""
    assert transcribe(client, response_format="text") == "my ******\n"


def test_transcription_streamed(client):
    """Each event of a stream that a text hook rewrites is one that the client knows."""
    events = list(transcribe(client, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert (events[0].delta, events[1].text) == ("my ******", "my ******")


def test_translation(client, model):
    answered = client.audio.translations.create(model="whisper-1", file=("a.wav", WAV, "audio/x-wav"))
    assert answered.text == "my ******"
    assert model.forms[-1] == [("model", "other"), ("file", File("a.wav", "audio/x-wav", WAV))]


def test_image_edit(client, model):
    """One image or several: each goes on under the client's own name for it."""
    client.images.edit(model="m", image=("a.png", PNG), prompt="red")
    assert dict(model.forms[-1]) == {"model": "other", "prompt": "red", "image": File("a.png", "image/png", PNG)}
    client.images.edit(model="m", image=[("a.png", PNG), ("b.png", PNG)], mask=("m.png", PNG), prompt="red", n=2)
    images = [value.filename for name, value in model.forms[-1] if name == "image[]"]
    assert images == ["a.png", "b.png"]
    assert dict(model.forms[-1])["n"] == "2"


def test_image_variation(client, model):
    client.images.create_variation(model="m", image=("a.png", PNG), user="u")
    assert dict(model.forms[-1])["user"] == "u"


def test_files(client, model):
    """A file that holds no calls goes on; one that should and does not is refused."""
    client.files.create(file=("a.txt", b"abc"), purpose="assistants")
    assert dict(model.forms[-1])["file"] == File("a.txt", "text/plain", b"abc")
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert caught.value.code == "invalid_batch"


def test_uploads(client, model):
    """An upload's parts are forms, its beginning and its end are JSON."""
    client.uploads.with_raw_response.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="assistants")
    assert model.forms[-1]["filename"] == "a.txt"
    client.uploads.parts.with_raw_response.create("upload_1", data=b"abc")
    assert dict(model.forms[-1])["data"].content == b"abc"
    client.uploads.with_raw_response.complete("upload_1", part_ids=["part_1"])
    assert model.forms[-1]["part_ids"] == ["part_1"]
    with pytest.raises(openai.PermissionDeniedError):
        client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="batch")


CREATE = {
    "transcription": transcribe,
    "transcription as text": lambda client: transcribe(client, response_format="text"),
    "streamed transcription": lambda client: transcribe(client, stream=True),
    "translation": lambda client: client.audio.translations.create(model="m", file=("a.wav", WAV)),
    "image edit": lambda client: client.images.edit(image=("a.png", PNG), prompt="red"),
    "streamed image edit": lambda client: client.images.edit(image=("a.png", PNG), prompt="red", stream=True),
    "image variation": lambda client: client.images.create_variation(image=("a.png", PNG)),
    "file": lambda client: client.files.create(file=("a.txt", b"abc"), purpose="assistants"),
}


@pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)
def test_a_refusal_is_a_bad_request_with_the_message(refused, create):
    """Whatever form of answer was asked for: none of these can say it otherwise."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(refused)
    assert (caught.value.body["message"], caught.value.code) == ("not this", "content_policy_violation")


def with_forms(found):
    """Those of the exchanges with a form."""
    return {
        name: one for name, one in found.items() if one["request"]["headers"].get("content-type", "").startswith(FORM)
    }


def as_of_ruby(path, purpose):
    """An exchange such as those recorded of Ruby's client."""
    head = 'name="file"; filename="a.x"\r\nContent-Length: 1\r\nContent-Type: \r\nContent-Transfer-Encoding: binary'
    body = form(part('name="purpose"', purpose), part(head, b"\xff"))
    request = {"path": path, "headers": {"content-type": TYPE}, "body_b64": base64.b64encode(body)}
    return {"request": request, "response": {"status": 200, "content_type": "application/json", "body": "{ }"}}


FORMS = {
    "our file": as_of_ruby("/v1/files", "assistants"),
    **with_forms(all_exchanges()),
}


@pytest.mark.anyio
@pytest.mark.parametrize("hooks", [list, lambda: [Reader()], lambda: [Witness()]], ids=["none", "before", "all"])
@pytest.mark.parametrize("exchange", FORMS.values(), ids=FORMS)
async def test_recorded_forms(exchange, hooks):
    """The app reads of a recorded form what the client sent, and the client gets the very bytes of the answer."""
    sent, got = exchange["request"], exchange["response"]
    body = sent["body"].encode() if "body" in sent else base64.b64decode(sent["body_b64"])
    messages = answer(got["body"].encode(), got["status"], got["content_type"])
    app = Upstream(messages)
    request = Request(body, sent["path"], headers=sent["headers"].items())
    response = await request.to(LLMGate(app, callbacks=hooks()))
    assert response.sent == messages
    ((scope, canonical),) = app.calls
    original = await starlette_reads(request.scope, body)
    # A media type that says nothing is none.
    expected = [
        (name, value if isinstance(value, str) else value._replace(content_type=value.content_type or None))
        for name, value in original
    ]
    assert await starlette_reads(scope, canonical) == expected


def test_recorded_forms_are_there():
    """The folder named has forms to replay."""
    assert with_forms(exchanges(RECORDINGS or missing("NOT RUN: recorded forms: LLM_GATE_RECORDINGS is not set")))
