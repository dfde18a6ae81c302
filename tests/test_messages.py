"""Anthropic's messages through a gate, and what Anthropic's official client makes of the answers."""

from __future__ import annotations

import re

import anthropic
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection
from tests.harness import Request, Upstream, answer
from tests.servers import serve
from tests.streams import chunks_of, streams
from tests.test_client import Switch
from tests.test_streams import Chunks, Texts, after, cut, messages

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
BODY = streams("messages")["messages_sse"]
ALL = ("text", "tool_calls", "reasoning")
ASKED: dict = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


async def streamed(pieces, *callbacks):
    request = Request(orjson.dumps({**ASKED, "stream": True}), path=PATH)
    return (await request.to(LLMGate(Upstream(messages(pieces)), callbacks=callbacks))).body


async def passed(chunks):
    async for got in chunks:
        yield got


async def no_thinking(chunks):
    async for got in chunks:
        if got.index != 0:
            yield got


async def cut_short(chunks):
    said = False
    while not said:
        got = await anext(chunks)
        yield got
        said = bool(got.delta and got.delta.text)


class Says(CallHooks):
    """Refuses every call, with a message or an exception."""

    def __init__(self, verdict):
        self.verdict = verdict

    async def async_pre_call_hook(self, data):
        return self.verdict


def masked(piece):
    return re.sub(r"\d{4}", "****", piece)


HOOKS = {
    "a text hook of nothing": lambda: [Texts(lambda piece: None, 0, ALL)],
    "iterator hooks of nothing": lambda: [Chunks(passed), Chunks(passed)],
    "rewriting": lambda: [Texts(str.upper, 0, ALL)],
    "a window": lambda: [Texts(masked, 20)],
    "a window on every channel": lambda: [Texts(masked, 1000, ALL)],
    "a block left out": lambda: [Chunks(no_thinking)],
    "ending early": lambda: [Chunks(cut_short), Texts(masked, 20)],
    "a refusal": lambda: [after(1, HTTPException(403, "no"))],
    "a crash": lambda: [after(1, ValueError())],
    "a message": lambda: [after(1, Rejection("no"))],
}


@pytest.mark.anyio
class TestStreams:
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.mark.parametrize(("name", "hooks"), HOOKS.items(), ids=HOOKS)
    async def test_any_split_gives_the_same_bytes(self, name, hooks):
        """Split at every byte, and in two; hooks that change nothing leave every byte."""
        whole = await streamed([BODY], *hooks())
        assert (whole == BODY) == ("nothing" in name)
        assert await streamed([BODY[at : at + 1] for at in range(len(BODY))], *hooks()) == whole
        for place in range(0, len(BODY), 97):
            assert await streamed(cut(BODY, [place]), *hooks()) == whole

    async def test_held_text_goes_out_before_the_stop_of_its_block(self):
        chunks = chunks_of(await streamed([BODY], *HOOKS["a window on every channel"]()))
        kinds = [(chunk["type"], chunk.get("index"), chunk.get("delta", {}).get("type")) for chunk in chunks]
        signed = kinds.index(("content_block_delta", 0, "signature_delta"))
        assert kinds[signed - 1] == ("content_block_delta", 0, "thinking_delta")
        for index, kind in ((1, "text_delta"), (2, "input_json_delta")):
            stop = kinds.index(("content_block_stop", index, None))
            assert kinds[stop - 1] == ("content_block_delta", index, kind)
        assert "1234" not in str(chunks)
        assert "****" in str(chunks)

    async def test_every_channel_has_its_texts(self):
        hook = Texts(lambda piece: None, 0, ALL)
        await streamed([BODY], hook)
        assert {(channel, index) for _, channel, index in hook.pieces} == {
            ("reasoning", 0),
            ("text", 1),
            ("tool_calls", 2),
        }

    async def test_an_error_of_the_app_passes_on_and_fails_the_call(self):
        class Log(Texts):
            failures: list = []  # noqa: RUF012  # one test's

            async def async_post_call_failure_hook(self, original_exception):
                self.failures.append(original_exception)

        body = streams("messages")["messages_sse_error"]
        log = Log(lambda piece: None, 50)
        out = chunks_of(await streamed([body], log))
        assert [chunk["type"] for chunk in out[-2:]] == ["content_block_delta", "error"]
        assert [(exc.type, exc.message) for exc in log.failures] == [("overloaded_error", "Overloaded")]


@pytest.mark.anyio
class TestUser:
    async def test_the_user_is_in_the_metadata(self):
        seen = []

        class Sees(CallHooks):
            async def async_pre_call_hook(self, user_api_key_dict, data):
                seen.append((user_api_key_dict.end_user_id, data["metadata"]["user_id"]))

        app = Upstream()
        gate = LLMGate(app, callbacks=[Sees()], enforce_user_param=True)
        body = orjson.dumps({**ASKED, "metadata": {"user_id": "u-1"}})
        assert (await Request(body, path=PATH).to(gate)).status == 200
        assert seen == [("u-1", "u-1")]
        assert app.data["metadata"] == {"user_id": "u-1"}

    @pytest.mark.parametrize("path", [PATH, COUNT])
    @pytest.mark.parametrize("fields", [{}, {"user": "u"}, {"metadata": {"user_id": " "}}, {"metadata": 1}], ids=repr)
    async def test_a_call_without_one_is_refused(self, path, fields):
        app = Upstream()
        gate = LLMGate(app, enforce_user_param=True)
        response = await Request(orjson.dumps({**ASKED, **fields}), path=path).to(gate)
        body = response.json()
        assert (response.status, app.calls) == (400, [])
        assert body == {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Missing required parameter: 'metadata.user_id'",
            },
            "request_id": response.header("request-id"),
        }

    @pytest.mark.parametrize("hooks", [[], [Says(None)]], ids=["no hook", "a callback"])
    async def test_a_count_has_none_to_forward(self, hooks):
        for metadata, kept in (({"user_id": "u"}, None), ({"user_id": "u", "a": 1}, {"a": 1})):
            app = Upstream()
            body = orjson.dumps({**ASKED, "metadata": metadata})
            await Request(body, path=COUNT).to(LLMGate(app, callbacks=hooks, enforce_user_param=True))
            assert app.data.get("metadata") == kept


@pytest.mark.anyio
async def test_a_count_is_refused_by_a_400():
    response = await Request(orjson.dumps(ASKED), path=COUNT).to(LLMGate(Upstream(), callbacks=[Says("no")]))
    body = response.json()
    assert (response.status, body["error"]) == (400, {"type": "invalid_request_error", "message": "no"})


@pytest.fixture(scope="module")
def switch():
    return Switch()


@pytest.fixture(scope="module")
def client(switch):
    with serve(switch) as url, anthropic.Anthropic(base_url=url, api_key="sk-x", max_retries=0, timeout=20) as client:
        yield client


WHOLE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "code 1234"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2},
}


def test_client_reads_what_a_success_hook_leaves(switch, client):
    class Masks(CallHooks):
        async def async_post_call_success_hook(self, response):
            response.content[0].text = masked(response.content[0].text)

    switch.app = LLMGate(Upstream(answer(orjson.dumps(WHOLE))), callbacks=[Masks()])
    message = client.messages.create(**ASKED)
    assert (message.content[0].text, message.usage.output_tokens) == ("code ****", 2)


def test_client_reads_a_rejected_message(switch, client):
    switch.app = LLMGate(Upstream(), callbacks=[Says("No, \u2028🦊")])
    message = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    for got in (message, streamed):
        assert [block.text for block in got.content] == ["No, \u2028🦊"]
        assert (got.model, got.role, got.stop_reason, got.stop_sequence) == ("m", "assistant", "end_turn", None)
        assert (got.usage.input_tokens, got.usage.output_tokens) == (0, 0)
    assert [kind for kind in kinds if kind != "text"] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]


RAISED = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (403, anthropic.PermissionDeniedError, "permission_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (529, anthropic.InternalServerError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "name"), RAISED)
@pytest.mark.parametrize("stream", [False, True])
def test_client_raises_the_error_of_the_status(switch, client, status, kind, name, stream):
    switch.app = LLMGate(Upstream(), callbacks=[Says(HTTPException(status, {"error": "no"}))])
    with pytest.raises(kind) as caught:
        client.messages.create(**ASKED, stream=stream)
    exc = caught.value
    assert exc.body == {"type": "error", "error": {"type": name, "message": "no"}, "request_id": exc.request_id}
    assert exc.request_id.startswith("req_")


# The hooks, the text the client has read, and what it raises or why the message stopped.
ENDS = {
    "a message": (lambda: [after(1, Rejection("[no]"))], ["A fox asks.", "Ich bin [no]"], "refusal"),
    "an exception": (lambda: [after(1, HTTPException(403, "no"))], ["A fox asks.", "Ich bin "], "permission_error"),
    "a crash": (lambda: [after(1, ValueError())], ["A fox asks.", "Ich bin "], "api_error"),
    "an early return": (lambda: [Chunks(cut_short)], ["A fox asks.", "Ich bin "], "end_turn"),
    "a block left out": (
        lambda: [Chunks(no_thinking), Texts(masked, 20)],
        ["Ich bin ein Füchslein 🦊, mein Code ist ****.", {"animal": "fox", "n": 2}],
        "tool_use",
    ),
}


@pytest.mark.parametrize(("hooks", "said", "end"), ENDS.values(), ids=ENDS)
def test_client_reads_streams_that_a_gate_ends(switch, client, hooks, said, end):
    switch.app = LLMGate(Upstream(messages([BODY])), callbacks=hooks())
    error = None
    with client.messages.stream(**ASKED) as stream:
        try:
            stream.until_done()
        except anthropic.APIStatusError as exc:
            error = exc.body["error"]["type"]
        message = stream.current_message_snapshot
    found = [getattr(part, "thinking", None) or getattr(part, "text", None) or part.input for part in message.content]
    assert found == said
    assert end in (error, message.stop_reason)
