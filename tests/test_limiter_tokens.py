"""What calls cost in tokens: by the usage of an answer, whole or streamed, or by its length."""

from __future__ import annotations

import math

import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks
from asgi_llm_gate.builtin.tokens import Cost, Spending, asks_for_usage, only_usage
from tests.actors import DONE, START, App, event, piece, said
from tests.harness import Upstream, answer, chat
from tests.limits import COUNTED, WHOLE, asked, caller, gated

pytestmark = pytest.mark.anyio

WORDS = {"prompt_tokens": 7, "completion_tokens": 3}

# Whole answers, what they cost where the prompt has ten characters, and whether that is an estimate.
WHOLES = {
    "OpenAI's": ({"usage": {**WORDS, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 2}}}, 11, False),
    "without a sum": ({"usage": WORDS}, 10, False),
    "a responses' or Anthropic's": ({"usage": {"input_tokens": 4, "output_tokens": 2, "service_tier": "x"}}, 6, False),
    "embeddings'": ({"usage": {"prompt_tokens": 5, "total_tokens": 5}, "data": [{"embedding": [0.1] * 9}]}, 5, False),
    "nothing": ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, 0, False),
    "no usage": ({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}, 3 + 2, True),
    "text": ({"text": "Good morning"}, 3 + 3, True),
    "parts": ({"content": [{"type": "text", "text": "abcd"}, {"type": "thinking", "thinking": "efgh"}]}, 3 + 2, True),
    "a call": ({"message": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}}, 3 + 2, True),
    "time": ({"usage": {"type": "duration", "seconds": 3}, "text": "Hi"}, 3 + 1, True),
    "no numbers": ({"usage": {"total_tokens": "9", "prompt_tokens": -1, "completion_tokens": True}}, 3, True),
    "usage as text": ({"usage": "none"}, 3, True),
}

# Streams, likewise.
STREAMS = {
    "a last chunk": ([said("Hi"), {"choices": [], "usage": {**WORDS, "total_tokens": 10}}], 10, False),
    "with the finish": ([{**said("Hi", "stop"), "usage": WORDS}], 10, False),
    "a growing one": ([{**said("Hi"), "usage": {**WORDS, "completion_tokens": n}} for n in range(5)], 11, False),
    "a responses'": (
        [{"type": "response.completed", "response": {"usage": {"input_tokens": 4, "output_tokens": 2}}}],
        6,
        False,
    ),
    "Anthropic's": (
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}},
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}},
        ],
        13,
        False,
    ),
    "no usage": ([{**said("Hell"), "usage": None}, said("o")], 3 + 2, True),
    "what is said twice": (
        [
            {"type": "response.output_text.delta", "delta": "Hello"},
            {"type": "response.output_text.done", "text": "Hello"},
            {"type": "response.output_item.done", "item": {"content": [{"text": "Hello"}]}},
        ],
        3 + 2,
        True,
    ),
    "odd chunks": ([{"type": None, "response": [], "message": "x", "choices": None}], 3, True),
    "none": ([], 3, True),
}


def ten():
    return "0123456789"


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_costs_what_it_says_or_what_it_is_long(name):
    spending = Spending()
    spending.see(WHOLES[name][0])
    assert spending.cost(ten) == Cost(*WHOLES[name][1:])


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_costs_what_its_last_word_on_that_says_or_what_it_is_long(name):
    spending = Spending()
    for chunk in STREAMS[name][0]:
        spending.see_chunk(chunk)
    assert spending.cost(ten) == Cost(*STREAMS[name][1:])


# What clients ask for, and what then goes on.
ASKED = {
    "nothing": ({}, False, {}),
    "a whole answer": ({"stream": False}, False, {"stream": False}),
    "a stream": ({"stream": True}, True, {"stream": True, "stream_options": {"include_usage": True}}),
    "no options": (
        {"stream": True, "stream_options": None},
        True,
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    "another option": (
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        True,
        {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": True}},
    ),
    "no usage": (
        {"stream": True, "stream_options": {"include_usage": False}},
        True,
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    "usage": (
        {"stream": True, "stream_options": {"include_usage": True}},
        False,
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    "nonsense": ({"stream": True, "stream_options": "x"}, False, {"stream": True, "stream_options": "x"}),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_stream_is_asked_for_its_usage_where_the_client_has_not(name):
    data, hides, left = ASKED[name]
    data = orjson.loads(orjson.dumps(data))
    assert (asks_for_usage(data), data) == (hides, left)


def test_only_the_chunk_that_says_nothing_else_is_hidden():
    """Not the first of Azure's, which has no choices either, nor a proxy's usage beside a choice."""
    assert only_usage({"choices": [], "usage": {"total_tokens": 1}})
    assert not only_usage({"choices": [], "prompt_filter_results": []})
    assert not only_usage({**said("", "stop"), "usage": {"total_tokens": 1}})


class Log(CallHooks):
    """Notes what the limiter leaves for the log."""

    def __init__(self):
        self.costs = []

    async def async_log_success_event(self, kwargs):
        self.costs.append(kwargs["litellm_params"]["metadata"].get("rate_limit_tokens"))


def streaming(*chunks):
    return (START, piece(b"".join(event(chunk) for chunk in chunks)), piece(DONE, more=False))


USAGE = {**said(""), "choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}}
STREAMED = chat(stream=True)
ALSO_ASKED = chat(stream=True, stream_options={"include_usage": True})

# What the app answers, what the client asks for; what is counted, and whether as an estimate.
CALLS = {
    "a whole answer": (answer(COUNTED), chat(), 10, False),
    "a whole answer without": (answer(WHOLE), chat(), 1 + 3, True),
    "a stream": (streaming(said("Hi"), USAGE), STREAMED, 42, False),
    "a stream whose client has asked": (streaming(said("Hi"), USAGE), ALSO_ASKED, 42, False),
    "a stream without": (streaming(said("Hello")), STREAMED, 1 + 2, True),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_a_call_has_cost_is_counted_when_it_ends(name):
    """And the log learns of it, and whether it is an estimate."""
    messages, body, tokens, estimated = CALLS[name]
    log = Log()
    gate = gated(Upstream(messages), log, who=caller(tpm_limit=100))
    await asked(gate, body)
    assert log.costs == [{"tokens": tokens, "estimated": estimated}]
    response = await asked(gate, body)
    assert response.header("x-ratelimit-remaining-tokens") == str(100 - tokens)


@pytest.mark.parametrize(("body", "shown"), [(STREAMED, False), (ALSO_ASKED, True)], ids=["not asked for", "asked for"])
async def test_the_usage_is_asked_for_and_shown_to_who_asked(body, shown):
    app = Upstream(streaming(said("Hi"), USAGE))
    response = await asked(gated(app, who=caller(tpm_limit=100)), body)
    assert response.chunks() == [said("Hi"), *([USAGE] if shown else [])]
    assert app.data["stream_options"] == {"include_usage": True}


async def test_without_a_limit_on_tokens_no_usage_is_asked_for():
    app = Upstream(streaming(said("Hi"), USAGE))
    response = await asked(gated(app, who=caller(rpm_limit=100)), STREAMED)
    assert response.chunks() == [said("Hi"), USAGE]
    assert "stream_options" not in app.data


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_where_streams_always_say_their_usage_it_is_not_asked_for(path):
    app = Upstream((START, piece(b"", more=False)))
    await asked(gated(app, who=caller(tpm_limit=100)), STREAMED, path)
    assert "stream_options" not in app.data


async def test_of_a_stream_that_ends_early_what_was_seen_is_counted():
    class Stops(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            raise HTTPException(403)

    gate = gated(App(*streaming(said("Hello"))), Stops(), who=caller(tpm_limit=100))
    await asked(gate, STREAMED)
    assert (await asked(gate)).header("x-ratelimit-remaining-tokens") == str(100 - 1 - math.ceil(5 / 4))


NOTHING = {
    "an error": (answer(b"{}", 500), {}),
    "sound": (answer(b"\xff", content_type="audio/mpeg"), {"path": "/v1/audio/speech"}),
    "no content": (answer(b"", 204), {}),
}


@pytest.mark.parametrize("name", NOTHING)
async def test_what_no_hook_can_read_costs_nothing(name):
    messages, request = NOTHING[name]
    gate = gated(Upstream(messages), who=caller(tpm_limit=100))
    for _ in range(2):
        response = await asked(gate, **request)
    assert response.header("x-ratelimit-remaining-tokens") == "100"


async def test_a_prompt_that_hooks_have_spoilt_keeps_no_slot(caplog):
    class Spoils(CallHooks):
        async def async_post_call_success_hook(self, data):
            data["messages"] = Unreadable()

    gate = gated(Upstream(answer(WHOLE)), Spoils(), who=caller(tpm_limit=100, max_parallel_requests=1))
    assert [(await asked(gate)).status for _ in range(2)] == [200, 200]
    assert "ParallelRequestLimiter.async_post_call_ended_hook" in caplog.text


async def test_without_a_place_for_it_the_log_does_not_learn_the_cost():
    class Tidies(CallHooks):
        async def async_post_call_success_hook(self, data):
            data["metadata"] = None

    gate = gated(Upstream(answer(COUNTED)), Tidies(), who=caller(tpm_limit=100))
    await asked(gate)
    assert (await asked(gate)).header("x-ratelimit-remaining-tokens") == "90"


class Unreadable(list):
    """A list that can't be read."""

    def __iter__(self):
        raise RuntimeError("unreadable")
