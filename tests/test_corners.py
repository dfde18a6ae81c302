"""What few callers meet: own paths, a call without a model, a count that is too high, a hold closed while it opens."""

from __future__ import annotations

import httpx
import pytest

from asgi_llm_gate import CallHooks, Forwarder, LLMGate
from asgi_llm_gate.body import count_values
from asgi_llm_gate.config import ConfigError
from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.endpoints import Routes
from asgi_llm_gate.moderation import Hold
from tests.harness import Request, Upstream, answer, chat
from tests.servers import serve

pytestmark = pytest.mark.anyio


def test_own_paths_join_and_leave_the_table():
    routes = Routes(paths={"/v2/Ask": "completion", "/My/embeddings": "pass"})
    assert routes.find("/api/v2/ask").call_type == "completion"
    assert routes.find("/my/embeddings") is None
    assert routes.find("/embeddings").call_type == "embeddings"
    with pytest.raises(ValueError, match="unknown call type 'ask'"):
        Routes(paths={"/ask": "ask"})


def test_a_call_without_a_model_goes_to_the_only_upstream():
    with serve(EchoModel(pause=0)) as upstream:
        entry = {"model_name": "m", "litellm_params": {"model": "m", "api_base": f"{upstream}/v1"}}
        with serve(LLMGate(Forwarder(model_list=[entry]))) as url:
            answer = httpx.post(f"{url}/v1/moderations", json={"input": "hello"})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 1


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        (b"[%b1]" % (b'"",' * 50), 50 + 51 + 10),
        (b'{%b"":1}' % (b'"a":1,' * 50), 51 * 4 + 51 + 10),
        (b"[%b[]]" % (b"[]," * 50), 52 * 10 + 51),
        (b'["%b"]' % (b'\\",[{:' * 50), 1 + 10 + 1),
        (b'["%b\\\\",1]' % (b",[" * 50), 1 + 1 + 10 + 1),
    ],
)
def test_what_values_weigh(body, weight):
    """Texts, keys and containers weigh more than numbers, and what stands in a text weighs nothing."""
    assert count_values(body, weight) == weight
    assert count_values(body, weight - 1) > weight - 1
    assert count_values(body, 3) > 3


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("streaming_window", -1, "Odd.streaming_window: expected a whole number from 0, or math.inf, got -1"),
        ("streaming_window", True, "Odd.streaming_window: expected a whole number from 0, or math.inf, got True"),
        ("streaming_channels", ("text", "audio"), "Odd.streaming_channels: expected some of text, tool_calls, "),
        ("streaming_channels", "texts", "Odd.streaming_channels: expected some of text, tool_calls, "),
    ],
)
def test_what_a_callback_asks_of_streams_is_checked_at_the_start(attribute, value, told):
    class Odd(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            """Never called."""

    callback = Odd()
    setattr(callback, attribute, value)
    with pytest.raises(ConfigError) as caught:
        LLMGate(Upstream(), callbacks=[callback])
    assert told in str(caught.value)


async def test_a_hold_that_is_closed_while_it_opens_lets_nothing_more_out():
    sent = []

    async def send(message):
        sent.append(message)
        hold.close()

    hold = Hold(send, 1000)
    for body in (b"a", b"b"):
        await hold({"type": "http.response.body", "body": body})
    await hold.open()
    await hold({"type": "http.response.body", "body": b"c"})
    assert [message["body"] for message in sent] == [b"a"]


async def test_a_response_too_large_for_success_hooks_alone_is_502():
    class Success(CallHooks):
        async def async_post_call_success_hook(self, response):
            """Never called."""

    gate = LLMGate(Upstream(answer(b'{"long":"response"}')), callbacks=[Success()], max_response_bytes=5)
    response = await Request(chat()).to(gate)
    assert (response.status, response.error()["code"]) == (502, "response_too_large")
