"""A streamed reply is sent in whole events, opened late and ended once, whoever ends it."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import GateError, Rejection
from asgi_llm_gate.event_reply import EventReply, EventWriter
from asgi_llm_gate.shapes.chat import ChatStream
from asgi_llm_gate.sse import DONE
from tests.harness import Request, Response, Upstream, chat
from tests.test_streams import START, Chunks, Texts, chunk, messages, said, streamed, texts, upper, wire

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

OPENER = chunk({"role": "assistant", "content": ""})
A = chunk({"content": "a"})


def writer():
    sent = []

    async def send(message):
        await checkpoint()
        sent.append(message)

    return EventWriter(dict(START), send, ChatStream()), sent


def bodies(sent):
    return [message["body"] for message in sent if message["type"] == "http.response.body"]


async def becomes(exc):
    return exc


async def test_openers_wait_for_the_first_that_says_something():
    out, sent = writer()
    out.put_chunk(OPENER)
    await out.flush()
    assert (sent, out.started) == ([], False)
    out.put_chunk(A)
    await out.flush()
    assert (sent[0], bodies(sent), out.started) == (START, [wire(OPENER, A)], True)
    out.put_chunk(OPENER)
    await out.flush()
    assert bodies(sent)[1:] == [wire(OPENER)]


async def test_openers_wait_for_no_more_than_the_end():
    out, sent = writer()
    out.put_chunk(OPENER)
    await out.flush(last=True)
    assert sent == [START, {"type": "http.response.body", "body": wire(OPENER), "more_body": False}]


async def test_a_flush_of_nothing_sends_nothing_but_the_end():
    out, sent = writer()
    out.put_chunk(A)
    for _ in range(3):
        await out.flush()
    await out.flush(last=True)
    assert bodies(sent) == [wire(A), b""]


ENDS = {
    "an error": (
        GateError(403, "no"),
        wire({"error": {"message": "no", "type": "permission_error", "param": None, "code": None}}) + DONE,
    ),
    "a message": (
        Rejection("no"),
        wire(
            {**A, "choices": [{"index": 0, "delta": {"content": "no"}, "logprobs": None, "finish_reason": None}]},
            {**A, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}]},
        )
        + DONE,
    ),
}


@pytest.mark.parametrize(("exc", "end"), ENDS.values(), ids=ENDS)
async def test_nothing_follows_an_end(exc, end):
    out, sent = writer()
    out.put_chunk(A)
    await out.flush()
    await out.end(lambda: becomes(exc))
    out.put_chunk(A)
    out.put(DONE)
    await out.flush(last=True)
    await out.end(lambda: becomes(exc))
    assert bodies(sent) == [wire(A), end]
    assert sent[-1]["more_body"] is False


async def test_two_who_end_a_stream_at_once_end_it_once():
    out, sent = writer()
    out.put_chunk(A)
    await out.flush()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(out.end, lambda: becomes(GateError(403, "no")))
            group.start_soon(out.flush)
    assert bodies(sent) == [wire(A), ENDS["an error"][1]]


async def test_an_end_that_was_answered_otherwise_sends_nothing():
    out, sent = writer()
    out.put_chunk(OPENER)
    await out.end(lambda: becomes(None))
    await out.flush(last=True)
    assert sent == []


async def test_what_follows_an_event_without_its_blank_line_does_not_run_into_it():
    out, sent = writer()
    for event in (b"data: cut", DONE, b"data: cut\n", b": a\n\n", b"data: cut"):
        out.put(event)
    await out.flush(last=True)
    assert bodies(sent) == [b"data: cut\n\n" + DONE + b"data: cut\n\n\n: a\n\ndata: cut"]


class WithoutDone(ChatStream):
    """The chunks of a protocol that has no `[DONE]`."""

    ends_with_done = False


def reply(stream):
    sent = []

    async def send(message):
        sent.append(message)

    made = EventReply(
        dict(START),
        send,
        stream=stream,
        editor=None,
        failed=becomes,
        errored=becomes,
        beside=becomes,
        max_event_bytes=1_000,
    )
    return made, sent


async def test_a_protocol_without_done_is_ended_without_it():
    early, sent = reply(WithoutDone())
    assert await early.stop()
    assert not await early.stop()
    head = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    finish = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert bodies(sent) == [wire({**head, "choices": [role]}, {**head, "choices": [finish]})]
    refused, sent = reply(WithoutDone())
    refused.writer.put_chunk(A)
    await refused.writer.flush()
    await refused.writer.end(lambda: becomes(GateError(403, "no")))
    assert bodies(sent)[-1] == ENDS["an error"][1].removesuffix(DONE)


async def test_a_break_is_no_news_before_the_first_byte_nor_after_the_end():
    broken, sent = reply(ChatStream())
    await broken.broken(GateError(500, "broke"))
    assert sent == []
    await broken.writer.flush(last=True)
    await broken.broken(GateError(500, "broke"))
    assert bodies(sent) == [b""]


async def test_headers_that_describe_the_bytes_go_and_trailers_are_not_announced():
    start = {
        **START,
        "headers": [*START["headers"], (b"content-length", b"5"), (b"etag", b"x"), (b"x-mine", b"1")],
        "trailers": True,
    }
    app = Upstream([start, *messages([said("a")])[1:], {"type": "http.response.trailers", "headers": []}])
    request = Request(chat(stream=True))
    await LLMGate(app, callbacks=[upper()])(request.scope, request.receive, request.send)
    response = Response(request.sent)
    assert request.sent[0]["trailers"] is False
    assert [name for name, _ in response.headers] == ["content-type", "x-mine"]


@pytest.mark.parametrize("path", ["text", "iterator"])
@pytest.mark.parametrize("first", [True, False], ids=["the first event", "a later event"])
async def test_an_event_too_large_to_look_at(first, path):
    """Before the first byte it is a 502, later an error event; what came before it is out, and nothing after it."""
    hook = upper() if path == "text" else Chunks(passes)
    body = wire(*[A] * (not first), chunk({"content": "b" * 500}), A)
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        response = await streamed(body, hook, pieces=pieces, max_event_bytes=300)
        assert b"too large to look at" in response.body
        if first:
            assert (response.status, response.error()["code"]) == (502, "response_too_large")
        else:
            assert list(texts(response).values()) == ["A" if path == "text" else "a"]


async def passes(chunks):
    async for got in chunks:
        yield got


async def test_chunks_that_a_generator_yields_after_the_stream_was_cut_go_nowhere():
    """Not to text hooks either: moderation ended the call while the generator was at work."""
    working, refused = anyio.Event(), anyio.Event()
    hook = Texts(lambda piece: None)

    async def works(chunks):
        async for got in chunks:
            yield got
            working.set()
            await refused.wait()
            yield chunk({"content": "late"})

    class Judge(CallHooks):
        async def async_moderation_hook(self):
            await working.wait()
            return "Enough."

        async def async_post_call_failure_hook(self):
            refused.set()
            await anyio.wait_all_tasks_blocked()

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": wire(A), "more_body": True})

    request = Request(chat(stream=True))
    gate = LLMGate(app, callbacks=[Chunks(works), hook, Judge()], moderation_mode="cut", cancel_grace=60)
    response = await request.to(gate)
    assert texts(response) == {0: "aEnough."}
    assert [piece for piece, *_ in hook.pieces] == ["a"]


@pytest.mark.parametrize("started", [True, False], ids=["in mid-stream", "before the first byte"])
async def test_an_app_that_breaks_off(started):
    """The break stays a break; text held back goes out before it, behind which the error says why."""
    request = Request(chat(stream=True))

    async def app(scope, receive, send):
        await receive()
        await send(START)
        body = wire(A, chunk({"content": "b"})) if started else wire(OPENER)
        await send({"type": "http.response.body", "body": body + b'data: {"choi', "more_body": True})
        raise OSError("the model broke off")

    with pytest.raises(OSError, match="broke off"):
        await LLMGate(app, callbacks=[Texts(lambda piece: None, 1)])(request.scope, request.receive, request.send)
    sent = b"".join(bodies(request.sent))
    assert b"choi" not in sent.replace(b"choices", b"")
    assert b"broke off" not in sent
    if started:
        assert sent.count(b'"content":"b"') == 1
        assert b'"error"' in sent.split(b"\n\n")[-2]
        assert all(message["more_body"] for message in request.sent[1:])
    else:
        assert request.sent == []
