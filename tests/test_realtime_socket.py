"""Realtime WebSockets: what of both directions hooks see, change and refuse."""

from __future__ import annotations

import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.errors import Rejection
from tests.websocket import REALTIME, Script, WebSocket, message_of

pytestmark = pytest.mark.anyio

SILENT = {"type": "input_audio_buffer.append", "audio": "QUJD"}


class Guard(CallHooks):
    """Refuses what says bad, changes what says old, and masks what is secret."""

    def __init__(self, **attributes):
        self.prompts = []
        self.failures = []
        self.pieces = []
        vars(self).update(attributes)

    async def async_pre_call_hook(self, data, call_type):
        prompt = get_formatted_prompt(data, call_type)
        self.prompts.append((call_type, prompt))
        if "crash" in prompt:
            raise ValueError(prompt)
        if "http" in prompt:
            raise HTTPException(429, "Slow down")
        if "bad" in prompt:
            return "Not that"
        if "old" in prompt:
            return orjson.loads(orjson.dumps({k: v for k, v in data.items() if k in EVENT}).replace(b"old", b"new"))
        if "no json" in prompt:
            data["item"] = {1, 2}
        return None

    async def async_moderation_hook(self, data):
        if "immoral" in get_formatted_prompt(data, "realtime"):
            return "Not moral"
        return None

    async def async_post_call_streaming_hook(self, response):
        self.pieces.append((response.channel, str(response)))
        if "refuse" in response:
            raise Rejection("Enough")
        if "forbid" in response:
            raise HTTPException(451, "Not here")
        return response.replace("secret", "******")

    async def async_post_call_failure_hook(self, original_exception):
        self.failures.append(original_exception)


EVENT = ("type", "event_id", "session", "response", "item", "previous_item_id")


def item(text, **more):
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        **more,
    }


async def told(app, *events, guard, **settings):
    """Say events, each answered before the next; return what the client heard."""
    socket = WebSocket(REALTIME)
    async with socket.open(LLMGate(app, callbacks=[guard], **settings)):
        socket.say(*events, {"type": "response.cancel"})
        heard = []
        while (event := await socket.hear()) != {"type": "end"}:
            heard.append(event)
    return heard


TEXTS = {
    "instructions": ({"type": "session.update", "session": {"instructions": "Be kind"}}, "Be kind"),
    "a tool": ({"type": "session.update", "session": {"tools": [{"description": "Sings"}]}}, "Sings"),
    "a transcription's prompt": (
        {"type": "session.update", "session": {"audio": {"input": {"transcription": {"prompt": "ZyntriQix"}}}}},
        "ZyntriQix",
    ),
    "a transcription's prompt of the beta": (
        {"type": "session.update", "session": {"input_audio_transcription": {"prompt": "QiX"}}},
        "QiX",
    ),
    "a response's": ({"type": "response.create", "response": {"instructions": "Sing"}}, "Sing"),
    "a response's input": (
        {"type": "response.create", "response": {"input": [{"role": "user", "content": [{"text": "Hi"}]}]}},
        "Hi",
    ),
    "no settings": ({"type": "response.create"}, ""),
    "an item": (item("Hi"), "Hi"),
    "an item's transcript": (
        {"type": "conversation.item.create", "item": {"content": [{"type": "input_audio", "transcript": "Ho"}, {}]}},
        "Ho",
    ),
    "a tool's output": ({"type": "conversation.item.create", "item": {"output": "42"}}, "42"),
    "no known type": ({"type": "text.append", "text": "x", "input": "Hi"}, "Hi"),
    "no type": ({"input": "Hi"}, "Hi"),
    "audio settings of no kind": ({"type": "session.update", "session": {"audio": {"input": 1}}}, ""),
}


@pytest.mark.parametrize(("event", "prompt"), TEXTS.values(), ids=TEXTS)
async def test_hooks_see_the_text_of_a_clients_event(event, prompt):
    """Every event that may carry text is shown, its text is its prompt, and it goes on as it was."""
    app, guard = Script([{"type": "end"}]), Guard()
    assert await told(app, event, guard=guard) == []
    assert guard.prompts == [("realtime", prompt)]
    assert app.got == [event, {"type": "response.cancel"}]


REFUSED = {
    "a message": (item("bad", event_id="e1"), 400, "content_policy_violation", "Not that"),
    "an HTTP error": (item("http", event_id="e1"), 429, "429", "Slow down"),
    "a crash": (item("crash", event_id="e1"), 500, "internal_error", "Internal server error"),
    "no JSON": (item("no json", event_id="e1"), 500, "internal_error", "Internal server error"),
    "moderation": (item("immoral", event_id="e1"), 400, "content_policy_violation", "Not moral"),
}


@pytest.mark.parametrize(("event", "status", "code", "message"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_event_is_answered_with_an_error_and_goes_nowhere(event, status, code, message):
    """The client reads why, with its event's id; the app gets nothing, the failure hooks are told, the socket lives."""
    app, guard = Script([{"type": "end"}]), Guard()
    (error,) = await told(app, event, guard=guard)
    assert (error["type"], error["event_id"][:6]) == ("error", "event_")
    assert error["error"]["event_id"] == "e1"
    assert (error["error"]["code"], error["error"]["message"]) == (code, message)
    assert app.got == [{"type": "response.cancel"}]
    assert len(guard.failures) == 1


BAD_FRAMES = {
    "not JSON": ("{", "invalid_json"),
    "a list": ("[]", "invalid_json"),
    "binary": (b'{"type": "response.create"}', "invalid_json"),
    "half a surrogate pair": ('{"a": "\ud800"}', "invalid_json"),
    "NaN": ('{"a": NaN}', "invalid_json"),
    "too deep": ('{"a":' + "[" * 140 + "]" * 140 + "}", "json_too_deep"),
    "too many values": ('{"a":[' + "[]," * 200 + "1]}", "json_too_large"),
    "too large": ('{"a":"' + "a" * 2000 + '"}', "request_too_large"),
}


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_a_frame_that_is_no_event_goes_nowhere(frame, code):
    """What the app might read differently never reaches it."""
    app, guard = Script([{"type": "end"}]), Guard()
    (error,) = await told(app, frame, guard=guard, max_json_values=2000, max_body_bytes=1000)
    assert error["error"]["code"] == code
    assert app.got == [{"type": "response.cancel"}]
    assert guard.prompts == []


async def test_what_the_app_gets_is_what_the_hooks_left_encoded_anew():
    """A changed event goes on changed, one key that stands twice has one value, and audio passes unseen."""
    app, guard = Script([], [], [{"type": "end"}]), Guard()
    twice = '{ "type":"session.update", "session": {"instructions":"bad"}, "session":{"instructions":"fine"}}'
    await told(app, item("old", metadata={"a": 1}), twice, SILENT, guard=guard)
    assert app.got[0] == item("new", metadata={"a": 1})
    assert app.texts[1] == '{"type":"session.update","session":{"instructions":"fine"}}'
    assert app.got[2] == SILENT
    assert [prompt for _, prompt in guard.prompts] == ["old", "fine"]


def said(*pieces, id="resp_1", kind="response.output_text", **more):
    where = {"response_id": id, "item_id": f"item_{id}", "output_index": 0, "content_index": 0}
    return [{"type": f"{kind}.delta", **where, "delta": piece, **more} for piece in pieces]


def whole(text, id="resp_1", part="output_text", key="text"):
    """A response with one message from its beginning to its end."""
    where = {"response_id": id, "item_id": f"item_{id}", "output_index": 0, "content_index": 0}
    kind = f"response.{part}{'_transcript' if key == 'transcript' else ''}"
    message = {"id": f"item_{id}", "type": "message", "role": "assistant", "status": "completed"}
    empty, full = {**message, "content": []}, {**message, "content": [{"type": part, key: text}]}
    middle = len(text) // 2
    return [
        {"type": "response.created", "response": {"id": id, "object": "realtime.response", "output": []}},
        {"type": "response.output_item.added", "response_id": id, "output_index": 0, "item": empty},
        {"type": "conversation.item.added", "item": empty},
        *said(text[:middle], text[middle:], id=id, kind=kind),
        {"type": f"{kind}.done", **where, key: text},
        {"type": "response.content_part.done", **where, "part": {"type": part, key: text}},
        {"type": "response.output_item.done", "response_id": id, "output_index": 0, "item": full},
        {"type": "conversation.item.done", "item": full},
        {"type": "response.done", "response": {"id": id, "status": "completed", "output": [full]}},
    ]


KINDS = [("output_text", "text"), ("output_audio", "transcript"), ("text", "text"), ("audio", "transcript")]


@pytest.mark.parametrize(("part", "key"), KINDS)
async def test_a_rewritten_text_is_rewritten_wherever_it_stands(part, key):
    """Pieces, the events that end them, the items and the response agree; a window sees what is cut in two."""
    events = whole("A secret of mine", part=part, key=key)
    app, guard = Script(events, [{"type": "end"}]), Guard(streaming_window=10)
    heard = await told(app, {"type": "response.create"}, guard=guard)
    assert b"secret" not in orjson.dumps(heard)
    text = "".join(event["delta"] for event in heard if event["type"].endswith(".delta"))
    assert text == "A ****** of mine"
    assert orjson.dumps(heard).count(b"A ****** of mine") == 5
    own = next(event for event in heard if event["type"].endswith(".delta") and event.get("event_id"))
    assert own["response_id"] == "resp_1"


async def test_a_text_nobody_changes_goes_out_byte_for_byte():
    """Frames keep their spelling and their kind, also those that are about no response or are no JSON."""
    frames = [
        '{ "type" : "session.created" }',
        '{"type": "response.created", "response": {"id": "r"}}',
        '{"type": "response.output_text.delta", "response_id":"r", "delta": "fine"}',
        b'{ "type": "response.output_text.delta", "response_id":"r", "delta": "fine"}',
        '{ "type": "conversation.item.added" , "item": null}',
        "no json",
        '{"type": "response.created", "response": 1 }',
        "[1]",
    ]
    app, socket = Script(frames), WebSocket(REALTIME)
    async with socket.open(LLMGate(app, callbacks=[Guard()])):
        socket.say(SILENT)
        heard = [await socket.next() for _ in frames]
    assert [message.get("text", message.get("bytes")) for message in heard] == frames


async def test_a_changed_binary_frame_stays_binary():
    """Clients read JSON from either kind."""
    frame = b'{"type": "response.output_text.delta", "response_id":"r", "delta": "secret"}'
    app, socket = Script([frame]), WebSocket(REALTIME)
    async with socket.open(LLMGate(app, callbacks=[Guard()])):
        socket.say(SILENT)
        message = await socket.next()
    assert orjson.loads(message["bytes"])["delta"] == "******"


async def test_two_responses_at_once_keep_their_texts_apart():
    """What a window holds of one response never comes out in the other."""
    first, second = whole("A secret", id="r1"), whole("No secret", id="r2")
    app = Script([event for pair in zip(first, second, strict=True) for event in pair], [{"type": "end"}])
    heard = await told(app, {"type": "response.create"}, guard=Guard(streaming_window=10))
    for key, text in (("r1", "A ******"), ("r2", "No ******")):
        pieces = [e["delta"] for e in heard if e["type"].endswith(".delta") and e["response_id"] == key]
        assert "".join(pieces) == text


async def test_a_tools_arguments_are_their_own_channel():
    """A hook that asks for tool calls sees their arguments, and the item agrees."""
    call = {"id": "fc", "type": "function_call", "name": "f", "arguments": '{"a": "secret"}'}
    where = {"response_id": "r", "item_id": "fc", "output_index": 0}
    events = [
        {"type": "response.function_call_arguments.delta", **where, "delta": call["arguments"]},
        {"type": "response.function_call_arguments.done", **where, "arguments": call["arguments"]},
        {"type": "response.done", "response": {"id": "r", "output": [call]}},
    ]
    guard = Guard(streaming_channels="tool_calls")
    heard = await told(Script(events, [{"type": "end"}]), {"type": "response.create"}, guard=guard)
    assert b"secret" not in orjson.dumps(heard)
    assert guard.pieces == [("tool_calls", '{"a": "secret"}')]


async def test_an_item_of_no_response_is_looked_at_whole():
    """What is retrieved later is shown to the hooks once more, all of it, whatever the window."""
    content = [{"type": "output_text", "text": "A secret"}]
    events = [{"type": "conversation.item.retrieved", "item": {"id": "i", "type": "message", "content": content}}]
    app = Script(events, [{"type": "end"}])
    (heard,) = await told(app, SILENT, guard=Guard(streaming_window=50))
    assert heard["item"]["content"][0]["text"] == "A ******"


ENDINGS = {
    "a message": ("refuse", "Enough", "content_policy_violation", "incomplete"),
    "an error": ("forbid", "Not here", "451", "failed"),
}


@pytest.mark.parametrize(("word", "message", "code", "status"), ENDINGS.values(), ids=ENDINGS)
async def test_a_hook_ends_a_response_and_nothing_else(word, message, code, status):
    """The client hears why and a last event; the app is asked to stop; what it still says of it goes nowhere."""
    events = [*whole(f"All of it is fine: {word}")[:-1], *whole("Next", id="resp_2"), whole("late")[-1]]
    app, guard = Script(events, [], [{"type": "end"}]), Guard()
    heard = await told(app, {"type": "response.create"}, guard=guard)
    # The third event to the app is the gate's own.
    assert app.got == [{"type": "response.create"}, {"type": "response.cancel", "response_id": "resp_1"}, app.got[2]]
    assert app.got[2] == {"type": "response.cancel"}
    ours = [event for event in heard if "resp_2" not in orjson.dumps(event).decode()]
    assert [event["type"] for event in ours[-2:]] == ["error", "response.done"]
    assert (ours[-2]["error"]["message"], ours[-2]["error"]["code"]) == (message, code)
    assert (ours[-1]["response"]["id"], ours[-1]["response"]["status"]) == ("resp_1", status)
    assert word.encode() not in orjson.dumps(heard)
    assert [e["delta"] for e in heard if e["type"].endswith(".delta")][-2:] == ["Ne", "xt"]
    assert len(guard.failures) == 1


async def test_a_response_that_a_hook_ended_has_nothing_left_when_the_app_goes():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for event in whole("All of it is fine: refuse")[:-1]:
            await send(message_of(event))

    *_, last = await WebSocket(REALTIME).to(LLMGate(app, callbacks=[Guard()]))
    assert orjson.loads(last["text"])["type"] == "response.done"


@pytest.mark.parametrize("word", ["refuse", "forbid"])
async def test_an_item_that_a_hook_refuses_is_an_error_alone(word):
    """There is no response to end or to stop."""
    content = [{"type": "output_text", "text": word}]
    events = [{"type": "conversation.item.retrieved", "item": {"id": "i", "type": "message", "content": content}}]
    app = Script(events, [{"type": "end"}])
    (heard,) = await told(app, SILENT, guard=Guard())
    assert heard["type"] == "error"
    assert app.got == [SILENT, {"type": "response.cancel"}]
