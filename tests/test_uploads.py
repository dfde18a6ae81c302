"""The files of a form: kept on disk, sent on as the app asks for them, closed whatever happens."""

from __future__ import annotations

import tempfile
import tracemalloc

import anyio
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.form_headers import form_boundary
from asgi_llm_gate.forms import FormParser
from asgi_llm_gate.uploads import CHUNK, MAX_IN_MEMORY, Spool
from tests.harness import Request, Upstream
from tests.multipart import TRANSCRIPTIONS, TYPE, form, form_request, part

pytestmark = pytest.mark.anyio

HEAD = part('name="f"; filename="x"').removesuffix(b"\r\n")
END = b"\r\n--b--\r\n"


class Hook(CallHooks):
    """A hook of one stage."""

    def __init__(self, stage, act):
        setattr(self, stage, act)


@pytest.fixture
def files(monkeypatch):
    """All files that are spooled in a test."""
    made = []

    class Noted(tempfile.SpooledTemporaryFile):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Noted)
    return made


def upload(size):
    """A request with a file of so many bytes, made as they are asked for."""
    request = form_request(b"")
    left = size

    async def receive():
        nonlocal left
        request.received += 1
        if request.received == 1:
            return {"type": "http.request", "body": HEAD, "more_body": True}
        if left:
            chunk = b"x" * min(left, CHUNK)
            left -= len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": True}
        if left is not None:
            left = None
            return {"type": "http.request", "body": END, "more_body": False}
        return await anyio.sleep_forever()

    request.receive = receive
    return request


class Counts:
    """An app that counts what it gets, and has no more of it than a message at a time."""

    def __init__(self):
        self.sizes = []
        self.length = 0

    async def __call__(self, scope, receive, send):
        self.length = int(dict(scope["headers"])[b"content-length"])
        more = True
        while more:
            message = await receive()
            self.sizes.append(len(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def nothing(**_):
    return None


@pytest.mark.parametrize("stage", ["async_pre_call_hook", "async_moderation_hook"])
async def test_a_large_upload_takes_little_memory(stage, files):
    """200 MB come in and go out in messages of 64 KiB; at no time is more than 5 MB of them in memory."""
    app = Counts()
    gate = LLMGate(app, callbacks=[Hook(stage, nothing)])
    await upload(1_000).to(gate)
    app.sizes.clear()
    tracemalloc.start()
    try:
        await upload(200_000_000).to(gate)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    assert sum(app.sizes) == app.length > 200_000_000
    assert max(app.sizes) == CHUNK
    assert all(file.closed for file in files)


@pytest.mark.parametrize("watched", [False, True])
async def test_the_file_is_read_as_the_app_asks_for_it(watched, files):
    """An app that takes a message and no more has the gate read no more than that."""
    places = []
    read = []

    async def counts(data):
        file = data["f"].file
        of_the_file = file.read

        def noted(size):
            read.append(size)
            return of_the_file(size)

        file.read = noted

    async def app(scope, receive, send):
        for _ in range(3):
            await receive()
            places.append(sum(read))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hooks = [Hook("async_pre_call_hook", counts)]
    if watched:
        hooks.append(Hook("async_post_call_failure_hook", nothing))
    await upload(1_000_000).to(LLMGate(app, callbacks=hooks))
    # A message needs one chunk, and a bit of the next behind the part's headers.
    assert [place <= (asked + 2) * CHUNK for asked, place in enumerate(places)] == [True] * 3
    assert all(file.closed for file in files)


async def test_a_hook_beside_the_call_reads_what_the_app_reads():
    """Reading a file in the moderation moves nothing for the app, nor the app anything for the hook."""
    content = bytes(range(256)) * 2_000
    heard = []

    async def listens(data):
        file = data["f"]
        while chunk := await file.read(50_000):
            heard.append(chunk)
            await anyio.lowlevel.checkpoint()
        await file.seek(10)
        heard.append(await file.read(5))

    app = Upstream()
    request = form_request(form(part('name="f"; filename="x"', content)))
    await request.to(LLMGate(app, callbacks=[Hook("async_moderation_hook", listens)]))
    assert content in app.calls[0][1]
    assert b"".join(heard) == content + content[10:15]


async def test_a_file_cut_while_it_is_sent_is_no_whole_body():
    """Less than the length that was announced is never passed off as all."""

    async def cuts(data):
        data["f"].file.truncate(10)

    async def app(scope, receive, send):
        while True:
            await receive()
            await anyio.wait_all_tasks_blocked()

    request = form_request(form(part('name="f"; filename="x"', b"x" * 300_000)))
    with pytest.raises(RuntimeError, match=r"Upload\('x', None\) was cut"):
        await request.to(LLMGate(app, callbacks=[Hook("async_moderation_hook", cuts)]))


async def hangs(**_):
    await anyio.sleep_forever()


async def crashes(**_):
    raise ValueError("of the hook")


async def refuses(**_):
    return "no"


async def raises(**_):
    raise HTTPException(403, "no")


async def broken_app(scope, receive, send):
    raise ValueError("of the app")


ENDS = {
    "success": ("async_pre_call_hook", nothing, 200),
    "a rejection before": ("async_pre_call_hook", refuses, 400),
    "an exception before": ("async_pre_call_hook", raises, 403),
    "a crash before": ("async_pre_call_hook", crashes, 500),
    "a rejection beside": ("async_moderation_hook", refuses, 400),
    "a crash beside": ("async_moderation_hook", crashes, 500),
    "a crash after": ("async_post_call_success_hook", crashes, 500),
}


@pytest.mark.parametrize(("stage", "act", "status"), ENDS.values(), ids=ENDS)
async def test_files_are_closed_however_the_call_ends(stage, act, status, files):
    """Success, refusals and crashes leave no file open."""
    response = await upload(2_000_000).to(LLMGate(Upstream(), callbacks=[Hook(stage, act)]))
    assert response.status == status
    assert [file.closed for file in files] == [True]


async def test_files_are_closed_when_the_app_crashes(files):
    with pytest.raises(ValueError, match="of the app"):
        await upload(2_000_000).to(LLMGate(broken_app))
    assert [file.closed for file in files] == [True]


async def test_files_are_closed_when_the_form_is_bad(files):
    """What came before the fault is no longer there."""
    request = form_request(form(part('name="f"; filename="x"', "x"), part("name=a; name=b")))
    assert (await request.to(LLMGate(Upstream()))).status == 400
    assert [file.closed for file in files] == [True]


async def test_files_are_closed_when_the_client_goes(files):
    """In the middle of its form, the call ends without an answer."""
    messages = [{"type": "http.request", "body": HEAD + b"x", "more_body": True}, {"type": "http.disconnect"}]
    request = Request(path=TRANSCRIPTIONS, headers=[("content-type", TYPE)], messages=messages)
    await LLMGate(Upstream())(request.scope, request.receive, request.send)
    assert request.sent == []
    assert [file.closed for file in files] == [True]


@pytest.mark.parametrize("stage", ["async_pre_call_hook", "async_moderation_hook"])
async def test_files_are_closed_when_the_call_is_cancelled(stage, files):
    request = upload(2_000_000)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(LLMGate(Upstream(), callbacks=[Hook(stage, hangs)]), *call_of(request))
            await anyio.wait_all_tasks_blocked()
            assert [file.closed for file in files] == [False]
            scope.cancel()
    assert [file.closed for file in files] == [True]


def call_of(request):
    return request.scope, request.receive, request.send


async def test_a_form_that_takes_too_long(files):
    """The time for a body is for all of it."""
    messages = [{"type": "http.request", "body": HEAD + b"x", "more_body": True}]
    request = Request(path=TRANSCRIPTIONS, headers=[("content-type", TYPE)], messages=messages)
    response = await request.to(LLMGate(Upstream(), body_timeout=0.01))
    assert (response.status, response.error()["code"]) == (408, "request_timeout")
    assert [file.closed for file in files] == [True]


def test_all_files_of_a_form_share_the_memory():
    """Many small files are on disk once they would be large together."""
    spool = Spool()
    uploads = [spool.create(str(number), None) for number in range(1)]
    for number in range(1, 6):
        uploads[-1].file.write(b"x" * (MAX_IN_MEMORY // 2))
        uploads.append(spool.create(str(number), None))
    uploads[-1].file.write(b"xx")
    assert [upload.file._rolled for upload in uploads] == [False, False, True, True, True, True]
    assert len(spool) == 6
    spool.close()


async def test_an_upload_is_read_from_its_beginning():
    """Hooks find each file at its beginning, as large as it is, and can go back."""
    parser = FormParser(form_boundary(TYPE.encode()), max_bytes=1_000, max_text_bytes=1_000)
    parser.feed(form(part('name="f"; filename="x"\r\nContent-Type: a/b', "12345")))
    (read,) = parser.close()
    file = read.value
    assert (file.filename, file.content_type, file.size) == ("x", "a/b", 5)
    assert (await file.read(2), file.size, await file.read(), await file.read(1)) == (b"12", 5, b"345", b"")
    await file.seek(1)
    assert await file.read() == b"2345"
    parser.discard()
    assert file.file.closed
