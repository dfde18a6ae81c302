"""Assistants' runs: what they read, and their streams through hooks that rewrite, hold back and refuse."""

from __future__ import annotations

import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.shapes import threads
from tests.actors import piece
from tests.harness import Request, Response, Upstream

pytestmark = pytest.mark.anyio

PATH = "/v1/threads/thread_1/runs"
BODY = orjson.dumps({"assistant_id": "asst_1", "stream": True})
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}

PROMPTS = {
    "assistant": ({"instructions": "a", "description": "b", "tools": [{"function": {"description": "c"}}]}, "a\nb\nc"),
    "thread": ({"messages": [{"role": "user", "content": "a"}, {"content": [{"type": "text", "text": "b"}]}]}, "a\nb"),
    "thread and run": ({"thread": {"messages": [{"content": "a"}]}, "instructions": "b"}, "b\na"),
    "run": ({"additional_instructions": "a", "additional_messages": [{"content": "b"}]}, "a\nb"),
    "message": ({"role": "user", "content": "a"}, "a"),
    "outputs": ({"tool_outputs": [{"tool_call_id": "c", "output": "a"}, {"output": "b"}]}, "a\nb"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_of_a_call(name):
    data, text = PROMPTS[name]
    assert get_formatted_prompt(data, "assistants") == text


def test_a_batch_of_chats_is_read_conversation_by_conversation():
    conversations = [[{"content": "a"}, {"content": "b"}], [{"content": "c"}]]
    assert get_formatted_prompt({"messages": conversations, "tools": []}, "completion_batch") == "a\nb\nc"
    assert get_formatted_prompt({"messages": [{"content": "a"}]}, "completion_batch") == "a"
    assert get_formatted_prompt({}, "completion_batch") == ""


def test_a_conversations_items_are_read():
    items = [{"type": "message", "role": "user", "content": "a"}, {"type": "function_call_output", "output": "b"}]
    assert get_formatted_prompt({"items": items}, "conversations") == "a\nb"


def event(name, **data):
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def run(status, **more):
    return event(f"thread.run.{status}", id="run_1", object="thread.run", status=status, **more)


def delta(text, index=0):
    part = {"index": index, "type": "text", "text": {"value": text}}
    return event("thread.message.delta", id="msg_1", object="thread.message.delta", delta={"content": [part]})


def message(*texts, status="completed"):
    parts = [{"type": "text", "text": {"value": text, "annotations": []}} for text in texts]
    return event(f"thread.message.{status}", id="msg_1", object="thread.message", status=status, content=parts)


DONE = b"event: done\ndata: [DONE]\n\n"
EVENTS = [run("queued"), message(status="in_progress"), delta("Say "), delta("the secret"), message("Say the secret")]
STREAM = b"".join([*EVENTS, run("completed"), DONE])


class Text(CallHooks):
    def __init__(self, change, window=0):
        self.change = change
        self.streaming_window = window

    async def async_post_call_streaming_hook(self, response):
        return self.change(response)


async def streamed(stream, *callbacks):
    app = Upstream([START, piece(stream[:100]), piece(stream[100:], more=False)])
    response = await Request(BODY, PATH).to(LLMGate(app, callbacks=callbacks))
    assert isinstance(response, Response)
    return response


def parts(body):
    """The names and the data of a stream's events."""
    found = []
    for raw in body.removesuffix(b"\n\n").split(b"\n\n"):
        *name, data = raw.split(b"\n")
        found.append(([line[7:].decode() for line in name], data[6:]))
    return found


async def test_what_nothing_changes_goes_on_to_the_byte():
    assert (await streamed(STREAM, Text(lambda piece: None, 8))).body.endswith(run("completed") + DONE)
    assert (await streamed(STREAM, Text(lambda piece: None))).body == STREAM


@pytest.mark.parametrize("window", [0, 10])
async def test_a_rewrite_changes_the_pieces_and_the_whole_message(window):
    response = await streamed(STREAM, Text(lambda piece: piece.replace("secret", "******"), window))
    assert b"secret" not in response.body
    assert message("Say the ******") in response.body
    said = [orjson.loads(data) for names, data in parts(response.body) if names == ["thread.message.delta"]]
    assert "".join(chunk["delta"]["content"][0]["text"]["value"] for chunk in said) == "Say the ******"


async def test_a_text_in_several_parts_is_rewritten_part_by_part():
    stream = delta("a") + delta("a", 1) + message("a", "a", "unsaid") + DONE
    response = await streamed(stream, Text(lambda piece: piece.upper() if piece.index else None))
    assert response.body == delta("a") + delta("A", 1) + message("a", "A", "unsaid") + DONE


async def test_a_refusal_in_mid_stream_is_an_error_event_and_done():
    def refuses(piece):
        if "secret" in piece:
            raise HTTPException(403, "no")

    response = await streamed(STREAM, Text(refuses))
    names, error = parts(response.body)[-2]
    assert (names, orjson.loads(error)["error"]["message"]) == (["error"], "no")
    assert parts(response.body)[-1][1] == b"[DONE]"


class Stop(CallHooks):
    """Ends the stream before the secret."""

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:  # pragma: no branch  # never to its end
            if chunk.object == "thread.message.delta" and "secret" in chunk.delta.content[0].text.value:
                return
            yield chunk


async def test_an_early_end_completes_the_run():
    response = await streamed(STREAM, Stop())
    assert b"secret" not in response.body
    names, last = parts(response.body)[-2]
    assert (names, orjson.loads(last)["status"]) == (["thread.run.completed"], "completed")


def test_a_message_in_mid_stream_is_the_last_piece_and_the_run_is_incomplete():
    reader = threads.open_stream()
    said, last = reader.message_end("no", "content_filter")
    assert said["delta"]["content"][0]["text"]["value"] == "no"
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert [reader.event_name(chunk) for chunk in (said, last)] == ["thread.message.delta", "thread.run.incomplete"]


async def test_a_run_that_fails_is_a_failure():
    class Reports(CallHooks):
        def __init__(self):
            self.told = []

        async def async_post_call_failure_hook(self, original_exception):
            self.told.append(original_exception)

    for failure, told in (
        (run("failed", last_error={"code": "server_error", "message": "broken"}), "broken"),
        (run("failed"), "The app answered with status 502"),
        (event("error", error={"message": "broken"}), "broken"),
    ):
        reports = Reports()
        response = await streamed(EVENTS[0] + failure + DONE, Text(lambda piece: None), reports)
        assert response.body == EVENTS[0] + failure + DONE
        assert [exc.message for exc in reports.told] == [told]


@pytest.mark.parametrize(
    "delta", [None, "x", {}, {"content": None}, {"content": ["x", {"text": "x"}, {"text": {}}]}], ids=repr
)
async def test_pieces_of_no_form_pass(delta):
    stream = event("thread.message.delta", id="m", object="thread.message.delta", delta=delta) + DONE
    assert (await streamed(stream, Text(lambda piece: "x"))).body == stream
