"""Where texts stand in requests and whole responses, whatever their shape."""

from __future__ import annotations

import copy

import pytest

from asgi_llm_gate.endpoints import by_call_type
from asgi_llm_gate.shapes.places import request_places, response_places

TOOL = {"type": "function", "function": {"name": "f", "description": "looks it up", "parameters": {"title": "none"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"q": "arg"}'}}

# A request of each endpoint, and its texts in order.
REQUESTS = {
    "completion": (
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "name": "ann", "content": [{"type": "text", "text": "one"}, "two"]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
                {"role": "assistant", "content": None, "refusal": "I won't", "tool_calls": [CALL]},
                {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "old"}},
                {"role": "tool", "tool_call_id": "1", "content": "found"},
            ],
            "logprobs": True,
            "prediction": {"type": "content", "content": "guess"},
            "tools": [TOOL],
            "functions": [{"name": "g", "description": "old tool"}],
        },
        [
            *("be kind", "one", "two", "I won't", '{"q": "arg"}', "old", "found", "guess", "looks it up", "old tool"),
        ],
    ),
    "completion_batch": (
        {"messages": [[{"role": "user", "content": "one"}], [{"role": "user", "content": "two"}]]},
        ["one", "two"],
    ),
    "text_completion": ({"prompt": ["one", [1, 2], "two"], "suffix": "end", "logprobs": 5}, ["one", "two", "end"]),
    "embeddings": ({"input": "one", "user": "ann"}, ["one"]),
    "moderation": ({"input": [{"type": "text", "text": "one"}, "two"]}, ["one", "two"]),
    "image_generation": ({"prompt": "a cat"}, ["a cat"]),
    "rerank": (
        {"query": "which", "documents": ["one", {"text": "two", "title": "three"}]},
        ["which", "one", "two", "three"],
    ),
    "responses": (
        {
            "instructions": "be kind",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "two"},
                {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "three"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "four"}]},
                {"type": "shell_call_output", "output": [{"stdout": "five", "stderr": "six"}]},
            ],
            "prompt": {"id": "p", "variables": {"type": "seven", "more": {"type": "input_text", "text": "eight"}}},
            "tools": [{"type": "mcp", "server_label": "l", "server_description": "nine"}],
        },
        ["one", "two", "three", "four", "five", "six", "seven", "input_text", "eight", "be kind", "nine"],
    ),
    "anthropic_messages": (
        {
            "system": [{"type": "text", "text": "be kind"}],
            "messages": [
                {"role": "user", "content": "one"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "two", "signature": "s"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"type": "three", "in": ["four", 5, ""]}},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "six"}]},
                        {"type": "document", "source": {"type": "text", "data": "seven"}, "title": "eight"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                        {"type": "search_result", "source": "nine", "title": "", "content": []},
                    ],
                },
            ],
            "tools": [{"name": "f", "description": "ten", "input_schema": {}}],
        },
        ["one", "two", "three", "four", "six", "eight", "seven", "nine", "be kind", "ten"],
    ),
    "assistants": (
        {
            "instructions": "one",
            "additional_instructions": "two",
            "thread": {"messages": [{"role": "user", "content": "three"}]},
            "additional_messages": [{"role": "user", "content": "four"}],
            "tool_outputs": [{"tool_call_id": "t", "output": "five"}],
        },
        ["one", "three", "four", "five", "two"],
    ),
}


@pytest.mark.parametrize("call_type", REQUESTS)
def test_every_text_that_the_model_reads_has_a_place(call_type):
    request, texts = REQUESTS[call_type]
    assert [place.text for place in request_places(request)] == texts
    endpoint = by_call_type(call_type)
    assert endpoint is not None
    prompt = endpoint.shape.prompt_text(request)
    for text in sorted({*texts} - {"input_text"}, key=len, reverse=True):
        prompt = prompt.replace(text, "")
    assert set(prompt) <= {"\n", "5"} | set("typeinmore"), prompt


@pytest.mark.parametrize("call_type", REQUESTS)
def test_another_text_can_be_put_in_each_place_of_a_request(call_type):
    request, texts = copy.deepcopy(REQUESTS[call_type])
    for place in request_places(request):
        place.put(f"<{place.text}>")
    assert [place.text for place in request_places(request)] == [f"<{text}>" for text in texts]
    assert request.get("logprobs") == REQUESTS[call_type][0].get("logprobs")


LOGPROBS = {"content": [{"token": "one"}]}

# A response of each shape, its texts, and what is left of its log probabilities when they are changed.
RESPONSES = {
    "chat": (
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "one"}, "logprobs": LOGPROBS},
                {
                    "index": 1,
                    "message": {"content": None, "refusal": "two", "reasoning_content": "three", "tool_calls": [CALL]},
                },
                {"index": 2, "message": {"content": None, "audio": {"data": "AAAA", "transcript": "four"}}},
            ],
            "usage": {"total_tokens": 1},
        },
        ["one", "two", "three", '{"q": "arg"}', "four"],
        lambda response: response["choices"][0]["logprobs"] is None,
    ),
    "text": (
        {"choices": [{"index": 0, "text": "one", "logprobs": {"tokens": ["one"]}}]},
        ["one"],
        lambda response: response["choices"][0]["logprobs"] is None,
    ),
    "responses": (
        {
            "instructions": "of the client's",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "one"}]},
                {
                    "type": "message",
                    "content": [{"type": "output_text", "text": "two", "logprobs": [{"token": "two"}]}],
                },
                {"type": "function_call", "arguments": "three", "name": "f"},
            ],
            "text": {"format": {"type": "text"}},
        },
        ["one", "two", "three"],
        lambda response: response["output"][1]["content"][0]["logprobs"] == [],
    ),
    "messages": (
        {
            "type": "message",
            "content": [{"type": "text", "text": "one"}, {"type": "tool_use", "name": "f", "input": {"q": "two"}}],
        },
        ["one", "two"],
        lambda response: "logprobs" not in response,
    ),
    "threads": ({"content": [{"type": "text", "text": {"value": "one"}}]}, ["one"], lambda _: True),
    "embeddings": ({"data": [{"embedding": "AAAA"}], "model": "m"}, [], lambda _: True),
    "moderations": ({"results": [{"flagged": True, "categories": {"hate": True}}]}, [], lambda _: True),
}


@pytest.mark.parametrize("shape", RESPONSES)
def test_every_text_of_a_response_has_a_place(shape):
    response, texts, agrees = copy.deepcopy(RESPONSES[shape])
    places = list(response_places(response))
    assert [place.text for place in places] == texts
    for place in places:
        place.put("changed")
    assert [place.text for place in response_places(response)] == ["changed"] * len(texts)
    assert agrees(response)
