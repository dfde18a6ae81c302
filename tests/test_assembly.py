"""A stream put together is what the unstreamed answer would have been; OpenAI's official client is the yardstick."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_llm_gate.shapes import chat, plain, response_input, responses, text
from tests.streams import chunks_of, helped_completion, helped_response, streams

calm = settings(deadline=None)

CHATS = {name: chunks_of(body) for name, body in streams("chat/completions").items()}
TEXTS = {name: chunks_of(body) for name, body in streams("completions").items()}
RESPONSES = {name: chunks_of(body) for name, body in streams("responses").items()}


def assembled(shape, chunks):
    """The chunks put together; they are left as they were."""
    before = copy.deepcopy(chunks)
    assembly = shape.open_assembly()
    for chunk in chunks:
        assembly.add(chunk)
    result = assembly.result()
    assert result == assembly.result()
    assert chunks == before
    return result


def told(completion):
    """What a completion says, as far as the client's helper says it too."""
    head = {name: completion.get(name) for name in ("id", "created", "model", "usage")}
    return head | {"choices": [told_choice(choice) for choice in completion["choices"]]}


def told_choice(choice):
    message = choice["message"]
    calls = [
        {kind: {key: call[kind].get(key) for key in ("name", "arguments", "input")} for kind in KINDS if call.get(kind)}
        | {"id": call["id"], "type": call["type"]}
        for call in message.get("tool_calls") or []
    ]
    texts = {name: message.get(name) for name in ("content", "refusal", "reasoning_content", "reasoning")}
    return texts | {name: choice.get(name) for name in ("index", "finish_reason", "logprobs")} | {"calls": calls}


KINDS = ("function", "custom")

# The client's helper has no place for parts, and it raises what a stream's error says.
HELPED = {
    name: chunks
    for name, chunks in CHATS.items()
    if name != "chat_sse_parts" and not any("error" in chunk for chunk in chunks)
}


@pytest.mark.parametrize("chunks", HELPED.values(), ids=HELPED)
def test_a_chat_is_what_the_official_client_puts_together(chunks):
    # The helper leaves out chunks that call themselves otherwise, as Perplexity's last does.
    alike = [chunk | {"object": "chat.completion.chunk"} for chunk in chunks if chunk.get("id")]
    result = assembled(chat, chunks)
    assert told(result) == told(helped_completion(alike))
    assert result["object"] == "chat.completion"
    assert [choice["message"]["role"] for choice in result["choices"]] == ["assistant"] * len(result["choices"])


def test_a_chat_of_every_kind_of_text():
    result = assembled(chat, CHATS["chat_sse_choices"])
    tools = [
        {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"a":1}'}},
        {"id": "call_2", "type": "custom", "custom": {"name": "draw", "input": "a fox"}},
    ]
    said = [{"role": "assistant", "content": "A fox.", "refusal": None, "tool_calls": tools}]
    said.append({"role": "assistant", "content": "The ", "refusal": "No fox."})
    assert [choice["message"] for choice in result["choices"]] == said
    assert [choice["finish_reason"] for choice in result["choices"]] == ["tool_calls", "stop"]
    assert [entry["token"] for entry in result["choices"][0]["logprobs"]["content"]] == ["A ", "fox."]
    assert "delta" not in result["choices"][0]


def test_parts_that_follow_one_another_are_joined():
    """Mistral's answers think in parts, then speak in parts or in strings."""
    result = assembled(chat, CHATS["chat_sse_parts"])
    assert result["choices"][0]["message"]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Foxes are red."}]},
        {"type": "text", "text": "A red fox."},
    ]
    assert result["usage"]["total_tokens"] == 3


def deltas(*given):
    return [{"id": "1", "choices": [{"index": 0, "delta": delta}]} for delta in given]


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ([{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}], [{"type": "text", "text": "ab"}]),
        ([{"content": ""}, {"content": [{"type": "text", "text": "b"}]}], [{"type": "text", "text": "b"}]),
        ([{"content": [{"type": "text", "text": "a"}]}, {"content": ""}], [{"type": "text", "text": "a"}]),
        ([{"content": None}, {"content": "a"}, {"content": None}], "a"),
        (
            [{"content": [1, {"type": "image"}]}, {"content": [{"type": "image"}]}],
            [1, {"type": "image"}, {"type": "image"}],
        ),
        ([{"role": "assistant"}], None),
    ],
    ids=["string, then parts", "empty, then parts", "parts, then empty", "nulls", "other parts", "none"],
)
def test_content_in_strings_and_in_parts(given, content):
    assert assembled(chat, deltas(*given))["choices"][0]["message"]["content"] == content


def test_what_a_stream_of_another_server_adds_is_kept():
    """Fields beside the texts come with their last value, reasoning in details by its index."""
    result = assembled(chat, CHATS["chat_sse_reasoning"])
    (choice,) = result["choices"]
    assert choice["native_finish_reason"] == "end_turn"
    assert choice["message"]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "Foxes are red.", "format": "f", "index": 0}
    ]
    assert (choice["message"]["reasoning"], choice["message"]["reasoning_content"]) == ("Foxes are red.", "Sure.")
    assert assembled(chat, CHATS["chat_sse_azure"])["prompt_filter_results"]
    assert "message" in assembled(chat, CHATS["chat_sse_repeats"])["choices"][0]


ODD = [
    {},
    {"choices": None},
    {"choices": [None, 1, {}]},
    {"choices": [{"index": "1", "delta": None}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "a"}}, None]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": "f"}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}}]},
    {"choices": [{"delta": "a", "text": "a"}]},
    {"choices": [{"delta": {"content": {"a": 1}}}]},
    {"obfuscation": "x", "stream_options": {}, "usage": None},
    {"error": {"message": "m"}},
]


@pytest.mark.parametrize("shape", [chat, text], ids=["chat", "text"])
@given(st.lists(st.sampled_from(ODD), max_size=4))
@calm
def test_odd_chunks_are_no_mistake(shape, chunks):
    result = assembled(shape, [chunk for chunk in chunks if shape is chat or not has_delta(chunk)])
    assert result is None or {"obfuscation", "stream_options"}.isdisjoint(result)


def has_delta(chunk):
    return any(isinstance(choice, dict) and "delta" in choice for choice in chunk.get("choices") or [])


@pytest.mark.parametrize("chunks", TEXTS.values(), ids=TEXTS)
def test_a_text_completion_is_its_texts_joined(chunks):
    result = assembled(text, chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for whole in result["choices"]:
        pieces = [choice for choice in choices if choice["index"] == whole["index"]]
        assert whole["text"] == "".join(piece["text"] for piece in pieces)
        assert whole["finish_reason"] == pieces[-1]["finish_reason"]
        assert "message" not in whole
    assert (result["object"], result["id"]) == ("text_completion", chunks[0]["id"])


def test_log_probabilities_of_a_text_completion_are_joined():
    def chunk(token):
        logprobs = {"tokens": [token], "token_logprobs": [-1.0], "top_logprobs": [{token: -1.0}], "text_offset": [0]}
        return {"id": "1", "choices": [{"index": 0, "text": token, "logprobs": logprobs}]}

    (choice,) = assembled(text, [chunk("a"), chunk("b")])["choices"]
    assert choice["logprobs"]["tokens"] == ["a", "b"]
    assert choice["logprobs"]["top_logprobs"] == [{"a": -1.0}, {"b": -1.0}]


@pytest.mark.parametrize("chunks", RESPONSES.values(), ids=RESPONSES)
def test_a_response_is_the_last_event_s(chunks):
    assert assembled(responses, chunks) == chunks[-1]["response"]


@pytest.mark.parametrize("chunks", RESPONSES.values(), ids=RESPONSES)
def test_a_response_cut_short_is_what_the_official_client_has_of_it(chunks):
    """Without the event that has it whole, the outputs come from the events that ended them."""
    _, helped = helped_response(chunks)
    result = assembled(responses, chunks[:-1])
    assert statusless(result["output"]) == statusless(chunks[-1]["response"]["output"])
    assert [item["type"] for item in result["output"]] == [item["type"] for item in helped["output"]]
    assert (result["id"], result["status"]) == (helped["id"], "in_progress")


ENDINGS = ("part.done", "item.done", "completed", "incomplete", "text.done", "arguments.done", "input.done")


@pytest.mark.parametrize("bare", [False, True], ids=["announced", "in pieces alone"])
@pytest.mark.parametrize("name", ["responses_sse", "responses_sse_bare"])
def test_a_response_in_pieces_says_the_same(name, bare):
    """Without any event that repeats a text, and without those that announce what comes, the pieces say all."""
    chunks = [chunk for chunk in RESPONSES[name] if not chunk["type"].endswith(ENDINGS)]
    kept = [chunk for chunk in chunks if not bare or not chunk["type"].endswith(".added")]
    result = assembled(responses, kept)
    assert said(result["output"]) == said(RESPONSES[name][-1]["response"]["output"])


def said(items):
    return {
        value
        for item in items
        for holder in [item, *(item.get("content") or []), *(item.get("summary") or [])]
        for key, value in holder.items()
        if key in {"text", "refusal", "arguments", "input", "code"}
    }


def statusless(items):
    return [{name: value for name, value in item.items() if name != "status"} for item in items]


def test_nothing_is_no_answer():
    for shape in (chat, text, responses):
        assert shape.open_assembly().result() is None
    assert plain.open_assembly() is None
    assert response_input.open_assembly() is None


def test_pieces_without_a_response_are_kept():
    """A stream whose first events were lost is logged with what there is."""
    where = {"output_index": 0, "content_index": 0}
    for chunk in (
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.done", "text": "a"},
    ):
        result = assembled(responses, [chunk | where])
        assert result["object"] == "response"
        assert result["output"][0]["content"][0]["text"] == "a"
