"""Forms: what of them hooks and app read, and what is refused."""

from __future__ import annotations

import io

import pytest
from django.core.files.uploadhandler import MemoryFileUploadHandler, TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.formparsers import MultiPartException
from starlette.requests import Request as StarletteRequest

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.form_body import encode_form
from asgi_llm_gate.form_data import form_data
from asgi_llm_gate.form_headers import form_boundary
from asgi_llm_gate.forms import FormParser, Part
from asgi_llm_gate.uploads import Upload
from tests.harness import Upstream
from tests.hosts import BESIDE, django_setup
from tests.multipart import TYPE, File, fields, form, form_request, part
from tests.tables.forms import DISAGREED, FORMS, OK, WAV

pytestmark = pytest.mark.anyio

calm = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Reads(CallHooks):
    """A pre-call hook that notes the data of each call, of files a copy."""

    def __init__(self):
        self.seen = []

    async def async_pre_call_hook(self, data):
        self.seen.append({name: await copied(value) for name, value in data.items() if name not in BESIDE})


async def copied(value):
    if isinstance(value, list):
        return [await copied(item) for item in value]
    if not isinstance(value, Upload):
        return value
    content = await value.read()
    assert (value.size, await value.read()) == (len(content), b"")
    return File(value.filename, value.content_type, content)


def content_type_of(scope):
    (value,) = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    return value


async def starlette_reads(scope, body):
    """The parts of a form, in order, as Starlette's parser reads them."""

    async def receive():
        return {"type": "http.request", "body": body}

    parts = []
    async with StarletteRequest(scope, receive).form(max_fields=2_000) as read:
        for name, value in read.multi_items():
            is_file = not isinstance(value, str)
            parts.append((name, File(value.filename, value.content_type, await value.read()) if is_file else value))
    return parts


def django_reads(scope, body):
    """The fields and files of a form as Django's parser reads them; it keeps the order of neither to the other."""
    django_setup()
    meta = {"CONTENT_TYPE": content_type_of(scope).decode(), "CONTENT_LENGTH": str(len(body))}
    handlers = [MemoryFileUploadHandler(), TemporaryFileUploadHandler()]
    post, files = MultiPartParser(meta, io.BytesIO(body), handlers).parse()
    texts = [(name, value) for name, values in post.lists() for value in values]
    read = [(name, value) for name, values in files.lists() for value in values]
    return texts, [(name, File(value.name, value.content_type or None, value.read())) for name, value in read]


def grouped(parts, kind):
    """What Django would read of the parts of a kind: by name."""
    parts = [(name, value) for name, value in parts if isinstance(value, kind)]
    names = dict.fromkeys(name for name, _ in parts)
    return [(name, value) for name in names for other, value in parts if other == name]


def as_data(parts):
    """What hooks read of parts."""
    data = {}
    for name, value in parts:
        key = name.removesuffix("[]") or name
        data.setdefault(key, []).append({"true": True, "false": False}[value] if key == "stream" else value)
    lists = {name.removesuffix("[]") for name, _ in parts if name.endswith("[]") and name != "[]"}
    return {key: values if key in lists or len(values) > 1 else values[0] for key, values in data.items()}


each = pytest.mark.parametrize("row", FORMS, ids=[row.name for row in FORMS])


@each
async def test_forms(row):
    """A form that can be read in one way alone is shown to the hooks and written anew; any other is refused."""
    app, reads = Upstream(), Reads()
    response = await form_request(row.body, content_type=row.content_type).to(LLMGate(app, callbacks=[reads]))
    if isinstance(row.verdict, tuple):
        status, words = row.verdict
        assert response.status == status
        assert words in response.error()["message"]
        assert (app.calls, reads.seen) == ([], [])
        return
    assert response.status == 200, response.body
    assert reads.seen == [as_data(row.verdict)]
    ((scope, body),) = app.calls
    assert (b"content-length", b"%d" % len(body)) in scope["headers"]
    assert await starlette_reads(scope, body) == row.verdict
    django = django_reads(scope, body)
    assert django[0] == grouped(row.verdict, str)
    if len(grouped(row.verdict, File)) < 50:
        assert [value.content for _, value in django[1]] == [value.content for _, value in grouped(row.verdict, File)]


@pytest.mark.parametrize("name", DISAGREED)
async def test_what_two_parsers_read_differently_is_refused(name):
    """With no gate before them, one framework reads what the other does not, or refuses it."""
    (row,) = [row for row in FORMS if row.name == name]
    assert isinstance(row.verdict, tuple)
    scope = {"type": "http", "headers": [(b"content-type", row.content_type.encode())]}
    readings = []
    for read in (starlette_reads, django_parts):
        try:
            readings.append(await read(scope, row.body))
        except MultiPartException as exc:
            readings.append(type(exc))
    assert readings[0] != readings[1]


async def django_parts(scope, body):
    texts, files = django_reads(scope, body)
    return [*texts, *files]


async def test_names_of_a_refusal_are_in_its_envelope():
    """A refusal names the field at fault where there is one."""
    response = await form_request(form(part('name="a"', b"\xff"))).to(LLMGate(Upstream()))
    error = response.error()
    assert (error["param"], error["code"], error["type"]) == ("a", "invalid_form", "invalid_request_error")


def parsed(chunks, content_type=TYPE, **limits):
    parser = FormParser(form_boundary(content_type.encode()), **{"max_bytes": 10**9, "max_text_bytes": 10**7, **limits})
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parts = parser.close()
        encoded = encode_form(form_data(parts), parts)
        body = b"".join(message["body"] for message in encoded.messages)
        assert len(body) == encoded.length
        return body.replace(encoded.content_type.partition(b"=")[2], b"b")
    except GateError as error:
        return error.status_code, error.message
    finally:
        parser.discard()


def cut(body, places):
    places = sorted({place % (len(body) + 1) for place in places})
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


SMALL = [
    row for row in FORMS if len(row.body) < 2_000 and "data" in row.content_type and "boundary=b" in row.content_type
]


@pytest.mark.parametrize("row", SMALL, ids=[row.name for row in SMALL])
def test_every_byte_alone(row):
    """A form that comes byte by byte is written anew as, or refused for what, it would be in one piece."""
    assert parsed([row.body]) == parsed([bytes([byte]) for byte in row.body])


@calm
@given(places=st.lists(st.integers(0, 10_000), max_size=20), extra=st.binary(max_size=80))
@example(places=[4], extra=b"b")
def test_any_split_gives_the_same(places, extra):
    """How a form is cut into messages makes no difference to what the app gets."""
    file = part('name="f"; filename="x"\r\nContent-Type: a/b', b"\r\n--" + extra + b"\r\n-")
    body = form(part('name="k[]"', "1"), file, WAV, part('name="k[]"', "2"))
    assert parsed(cut(body, places)) == parsed([body])


@calm
@given(body=st.binary(max_size=200), places=st.lists(st.integers(0, 300), max_size=5), at=st.integers(0, 400))
def test_no_bytes_break_the_parser(body, places, at):
    """Whatever comes is a form, or refused with a 400; never a crash."""
    whole = form(part('name="k"', "1"), WAV)
    at %= len(whole)
    result = parsed(cut(whole[:at] + body + whole[at:], places))
    assert isinstance(result, bytes) or result[0] == 400


CONTROL = [chr(code) for code in range(32)] + ["\x7f", "\\", '"']
names = st.text(st.characters(exclude_characters=CONTROL, exclude_categories=["Cs"]), min_size=1, max_size=20)
plain_names = names.filter(
    lambda name: name == name.strip() and "[" not in name and name not in {"stream", "model", "user", "purpose"}
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
contents = st.builds(File, names, st.sampled_from([None, "audio/wav", 'text/plain; a="b"']), st.binary(max_size=100))


def encoded(parts):
    """The parts as a careful client writes them."""

    def one(name, value):
        if isinstance(value, str):
            return part(f'name="{name}"', value)
        header = f"\r\nContent-Type: {value.content_type}" if value.content_type else ""
        return part(f'name="{name}"; filename="{value.filename}"{header}', value.content)

    return form(*(one(name, value) for name, value in parts))


@calm
@given(
    parts=st.lists(st.tuples(plain_names, texts | contents), max_size=5).filter(
        lambda parts: (
            not any(
                "\r\n--b" in part[1] if isinstance(part[1], str) else b"\r\n--b" in part[1].content for part in parts
            )
        )
    )
)
async def test_any_fields_and_files_survive(parts):
    """Starlette and Django read of the gate's form what the client's said."""
    app = Upstream()
    response = await form_request(encoded(parts)).to(LLMGate(app, callbacks=[Reads()]))
    assert response.status == 200, response.body
    ((scope, body),) = app.calls
    assert await starlette_reads(scope, body) == parts
    texts, files = django_reads(scope, body)
    assert texts == grouped(parts, str)
    # Django leaves out files whose names it takes for none, and changes other names.
    contents = [value.content for _, value in grouped(parts, File)]
    assert [value.content for _, value in files if value.content in contents] == [value.content for _, value in files]


@pytest.mark.parametrize(
    ("limits", "chunks", "status"),
    [
        ({"max_bytes": len(OK)}, [OK], None),
        ({"max_bytes": len(OK) - 1}, [OK], 413),
        ({"max_bytes": len(OK) - 1}, [OK[:10], OK[10:]], 413),
        ({"max_text_bytes": 3}, [form(part('name="a"', "12"), part('name="b"', "3"), WAV)], None),
        ({"max_text_bytes": 2}, [form(part('name="a"', "12"), part('name="b"', "3"), WAV)], 413),
    ],
)
def test_limits(limits, chunks, status):
    """All bytes count, and those of fields apart; files do not count as fields."""
    result = parsed(chunks, **limits)
    assert result[0] == status if status else isinstance(result, bytes)


HEADS = {
    "a wrong type": ({"content-type": "text/plain"}, 415, "unsupported_content_type"),
    "no boundary": ({"content-type": "multipart/form-data"}, 400, "invalid_form"),
    "a coding": ({"content-type": TYPE, "content-encoding": "gzip"}, 415, "unsupported_content_encoding"),
    "too long": ({"content-type": TYPE, "content-length": "513000000"}, 413, "request_too_large"),
    "a length that is none": ({"content-type": TYPE, "content-length": "x"}, 400, "invalid_content_length"),
}


@pytest.mark.parametrize(("headers", "status", "code"), HEADS.values(), ids=HEADS)
async def test_what_the_headers_condemn_is_refused_before_the_body(headers, status, code):
    """No `receive()` asks for a form that is refused anyway."""
    request = form_request(OK)
    request.scope["headers"] = [(name.encode(), value.encode()) for name, value in headers.items()]
    response = await request.to(LLMGate(Upstream()))
    assert (response.status, response.error()["code"], request.received) == (status, code, 0)


async def test_a_form_that_no_header_announced():
    """A method that needs no body, with one after all, is looked into as any other."""
    app, reads = Upstream(), Reads()
    gate = LLMGate(app, callbacks=[reads], max_body_bytes=1_000)
    assert (await form_request(OK, method="GET").to(gate)).status == 200
    assert reads.seen == [{"model": "m"}]
    assert (await form_request(b"", method="GET").to(gate)).status == 200
    assert len(reads.seen) == 1
    assert (await form_request(OK + b"x", method="GET").to(gate)).status == 400


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/chat/completions"])
async def test_json_where_it_is_taken(path):
    """Image edits come as JSON too; where nothing else is taken a form is 415."""
    reads = Reads()
    response = await form_request(b'{"model":"m"}', path, "application/json").to(LLMGate(Upstream(), callbacks=[reads]))
    assert (response.status, reads.seen) == (200, [{"model": "m"}])
    response = await form_request(OK, path).to(LLMGate(Upstream(), callbacks=[reads]))
    assert response.status == (200 if "images" in path else 415)


async def test_enforced_fields_of_a_form():
    """`user` counts as a field of a form, and goes on where OpenAI's endpoint has one."""
    app = Upstream()
    gate = LLMGate(app, enforce_user_param=True, enforced_params=["model"])
    response = await form_request(fields(model="m", user=" \u200b")).to(gate)
    assert (response.status, response.error()["param"]) == (400, "user")
    response = await form_request(fields(user="u")).to(gate)
    assert (response.status, response.error()["param"]) == (400, "model")
    for path, forwarded in [("/v1/audio/transcriptions", False), ("/v1/images/edits", True)]:
        assert (await form_request(fields(model="m", user="u"), path).to(gate)).status == 200
        scope, body = app.calls[-1]
        assert (("user", "u") in await starlette_reads(scope, body)) is forwarded


async def test_the_gates_own_keys_are_no_fields():
    """What a client sends under the gate's names reaches neither hooks nor app; its metadata goes on as sent."""
    app = Upstream()
    reads = Reads()
    body = fields(model="m", litellm_call_id="x", secret_fields="y", metadata="z")
    await form_request(body).to(LLMGate(app, callbacks=[reads]))
    ((scope, body),) = app.calls
    assert await starlette_reads(scope, body) == [("model", "m"), ("metadata", "z")]


async def test_the_body_among_the_gates_keys_names_files():
    """`proxy_server_request` has the fields as the client sent them, and of files the names."""
    seen = []

    class Looks(CallHooks):
        async def async_pre_call_hook(self, data):
            seen.append(data["proxy_server_request"]["body"])

    body = form(part('name="k[]"', "1"), WAV, part('name="stream"', "true"))
    await form_request(body).to(LLMGate(Upstream(), callbacks=[Looks()]))
    assert seen == [{"k": ["1"], "file": "a.wav", "stream": True}]


@pytest.mark.parametrize("purpose", ["batch", " Batch\t"])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads"])
async def test_files_of_calls(path, purpose):
    """A file of calls that can't be read as one is refused, and passes where the settings say so."""
    app, reads = Upstream(), Reads()
    is_form = path == "/v1/files"
    body = form(part('name="purpose"', purpose), WAV) if is_form else b'{"purpose":"%b"}' % purpose.strip().encode()
    kind = TYPE if is_form else "application/json"
    response = await form_request(body, path, kind).to(LLMGate(app, callbacks=[reads]))
    verdict = (400, "invalid_json") if is_form else (403, "endpoint_not_inspected")
    assert (response.status, response.error()["code"], app.calls) == (*verdict, [])
    response = await form_request(body, path, kind).to(LLMGate(app, policies={path.rpartition("/")[2]: "pass"}))
    assert (response.status, app.calls[0][1]) == (200, body)


async def test_files_of_another_purpose():
    """Other files are a call like any other: changed by hooks, under their own call type; `deny` refuses all."""
    app = Upstream()
    types = []

    class Renames(CallHooks):
        async def async_pre_call_hook(self, data, call_type):
            types.append(call_type)
            data["purpose"] = "user_data"

    body = form(part('name="purpose"', "assistants"), WAV)
    gate = LLMGate(app, callbacks=[Renames()])
    assert (await form_request(body, "/v1/files").to(gate)).status == 200
    scope, sent = app.calls[0]
    assert (await starlette_reads(scope, sent))[0] == ("purpose", "user_data")
    assert types == ["files"]
    denies = LLMGate(app, callbacks=[Renames()], policies={"files": "deny"})
    assert (await form_request(body, "/v1/files").to(denies)).status == 403


async def changed(change, body):
    """The parts that the app gets after a hook's change, or the response of a refusal."""
    app = Upstream()

    class Changes(CallHooks):
        async def async_pre_call_hook(self, data):
            return change(data)

    response = await form_request(body).to(LLMGate(app, callbacks=[Changes()]))
    if response.status != 200:
        return response
    ((scope, sent),) = app.calls
    return await starlette_reads(scope, sent)


BOTH = form(
    part('name="model"\r\nContent-Type: text/plain', "m"), WAV, part('name="k[]"', "1"), part('name="k[]"', "2")
)
FILE = ("file", File("a.wav", "audio/wav", b"RIFF\r\n--\r\n--x\0\xff"))
K = [("k[]", "1"), ("k[]", "2")]

CHANGES = {
    "a field": ({"model": "new"}, [("model", "new"), FILE, *K]),
    "a new field": ({"language": "de"}, [("model", "m"), FILE, *K, ("language", "de")]),
    "numbers": ({"n": 3, "temperature": 0.5}, [("model", "m"), FILE, *K, ("n", "3"), ("temperature", "0.5")]),
    "a boolean": ({"stream": True, "x": False}, [("model", "m"), FILE, *K, ("stream", "true"), ("x", "false")]),
    "a longer list": ({"k": ["a", "b", "c"]}, [("model", "m"), FILE, ("k[]", "a"), ("k[]", "b"), ("k[]", "c")]),
    "a shorter list": ({"k": ["a"]}, [("model", "m"), FILE, ("k[]", "a")]),
    "no list": ({"k": "a"}, [("model", "m"), FILE, ("k[]", "a")]),
    "a field as a list": ({"model": ["a", "b"]}, [("model", "a"), ("model", "b"), FILE, *K]),
    "a new list": ({"l": ["a", "b"]}, [("model", "m"), FILE, *K, ("l[]", "a"), ("l[]", "b")]),
    "None": ({"model": None, "x": None, "k": [None, "a"]}, [FILE, ("k[]", "a")]),
    "bytes": ({"file": b"new"}, [("model", "m"), ("file", File("a.wav", "audio/wav", b"new")), *K]),
    "new bytes": ({"x": b"new"}, [("model", "m"), FILE, *K, ("x", File("x", None, b"new"))]),
    "a pair": ({"file": ("b", b"new")}, [("model", "m"), ("file", File("b", None, b"new")), *K]),
    "a triple": ({"file": ("b", b"new", "c/d")}, [("model", "m"), ("file", File("b", "c/d", b"new")), *K]),
    "files": (
        {"x": [b"1", ("b", b"2")]},
        [
            *[("model", "m"), FILE, *K],
            *[("x[]", File("x", None, b"1")), ("x[]", File("b", None, b"2"))],
        ],
    ),
    "a name of odd characters": ({'a"\r\n': "x"}, [("model", "m"), FILE, *K, ("a%22%0D%0A", "x")]),
    "a backslash": ({"file": ("a\\b", b"x")}, [("model", "m"), ("file", File("a\\b", None, b"x")), *K]),
    "a file of 200 kB": (
        {"file": b"x" * 200_000},
        [*[("model", "m"), ("file", File("a.wav", "audio/wav", b"x" * 200_000)), *K]],
    ),
}


@pytest.mark.parametrize(("new", "parts"), CHANGES.values(), ids=CHANGES)
async def test_what_hooks_changed_is_what_goes_out(new, parts):
    """Fields and files changed, added and left out, in the client's order and under its names."""
    assert await changed(lambda data: data.update(new), BOTH) == parts


async def test_what_hooks_left_out_goes_nowhere():
    """A field deleted is no part, and a whole new dict is the form."""
    assert await changed(lambda data: data.pop("file") and None, BOTH) == [("model", "m"), *K]
    assert await changed(lambda data: {"x": "y"}, BOTH) == [("x", "y")]
    assert await changed(lambda data: {"file": data["file"], "model": "m"}, BOTH) == [("model", "m"), FILE]


async def test_a_file_can_be_renamed_and_rewritten():
    """What a hook writes into the file, and how it names it, is what the app gets."""

    def rewrite(data):
        upload = data["file"]
        assert repr(upload) == "Upload('a.wav', 'audio/wav')"
        upload.filename, upload.content_type = "b.mp3", None
        upload.file.truncate(0)
        upload.file.write(b"new")

    assert await changed(rewrite, BOTH) == [("model", "m"), ("file", File("b.mp3", None, b"new")), *K]


NO_FORM = {
    "an object": {"x": {"a": 1}},
    "a list in a list": {"x": [["a"]]},
    "infinity": {"x": float("inf")},
    "nobody knows": {"x": object()},
    "half a surrogate pair": {"x": "\ud800"},
    "such a name": {"\ud800": "x"},
    "a number of too many digits": {"x": 2**70},
    "an empty name": {"": "x"},
    "a name that Django strips": {" user": "x"},
    "a name that is no text": {1: "x"},
    "a control character in a name": {"a\0": "x"},
    "a filename that is none": {"x": (1, b"")},
    "a tuple of one": {"x": ("a",)},
    "a file of text": {"x": ("a", "b")},
    "a type that is none": {"x": ("a", b"b", "c\r\nd")},
    "a type that is no text": {"x": ("a", b"b", 1)},
}


@pytest.mark.parametrize("new", NO_FORM.values(), ids=NO_FORM)
async def test_what_no_form_can_carry_is_the_hooks_fault(new, caplog):
    """The client learns nothing of it, the log names the hook."""
    response = await changed(lambda data: data.update(new), BOTH)
    assert (response.status, response.error()["code"]) == (500, "internal_error")
    assert "Changes.async_pre_call_hook left data that no form can carry" in caplog.text


def test_a_parts_key():
    """Brackets at the end say that a field is a list, and are no part of its name in `data`."""
    assert [Part(name, "", None).key for name in ("a", "a[]", "[]", "a[b]", "a[][]")] == ["a", "a", "[]", "a[b]", "a[]"]
