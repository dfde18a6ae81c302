"""What the model reads of a request, and what the gate answers in the endpoint's own words."""

from __future__ import annotations

import copy
from enum import Enum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_llm_gate import get_formatted_prompt
from asgi_llm_gate.shapes import chat, common, plain, text

# A loaded machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORD = st.text("abcdefgh", min_size=1, max_size=6).map(lambda word: f"<{word}>")


def text_part(word):
    return {"type": "text", "text": word}


# A place where a chat request carries text, as a function of that text.
CHAT_PLACES = [
    ("content", lambda word: {"messages": [{"role": "user", "content": word}]}),
    ("a text part", lambda word: {"messages": [{"role": "user", "content": [text_part(word)]}]}),
    ("an input_text part", lambda word: {"messages": [{"content": [{"type": "input_text", "text": word}]}]}),
    ("a refusal part", lambda word: {"messages": [{"content": [{"type": "refusal", "refusal": word}]}]}),
    ("a string among parts", lambda word: {"messages": [{"content": [word]}]}),
    ("one part that is no list", lambda word: {"messages": [{"content": text_part(word)}]}),
    ("parts of parts", lambda word: {"messages": [{"content": [{"content": [text_part(word)]}]}]}),
    ("beside an image", lambda word: {"messages": [{"content": [{"type": "image_url"}, text_part(word)]}]}),
    ("a system message", lambda word: {"messages": [{"role": "system", "content": word}]}),
    ("a tool's output", lambda word: {"messages": [{"role": "tool", "tool_call_id": "1", "content": word}]}),
    ("a refusal", lambda word: {"messages": [{"content": None, "refusal": word}]}),
    ("reasoning", lambda word: {"messages": [{"content": "", "reasoning_content": word}]}),
    ("a tool call", lambda word: {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": word}}]}]}),
    ("a custom tool call", lambda word: {"messages": [{"tool_calls": [{"custom": {"input": word}}]}]}),
    ("a function call", lambda word: {"messages": [{"function_call": {"name": "f", "arguments": word}}]}),
    ("one message that is no list", lambda word: {"messages": {"content": word}}),
    ("a tool's description", lambda word: {"tools": [{"function": {"name": "f", "description": word}}]}),
    ("a custom tool's description", lambda word: {"tools": [{"custom": {"description": word}}]}),
    ("a function's description", lambda word: {"functions": [{"name": "f", "description": word}]}),
    ("a prediction", lambda word: {"prediction": {"type": "content", "content": word}}),
    ("parts of a prediction", lambda word: {"prediction": {"content": [text_part(word)]}}),
]
TEXT_PLACES = [
    ("a prompt", lambda word: {"prompt": word}),
    ("prompts", lambda word: {"prompt": ["x", word]}),
    ("a suffix", lambda word: {"prompt": [1, 2], "suffix": word}),
]
PLAIN_PLACES = [
    ("an input", lambda word: {"input": word}),
    ("inputs", lambda word: {"input": ["x", word]}),
    ("a text part", lambda word: {"input": [{"type": "image_url", "image_url": {"url": "u"}}, text_part(word)]}),
    ("a prompt", lambda word: {"prompt": word}),
    ("instructions", lambda word: {"instructions": word}),
    ("a query", lambda word: {"query": word}),
    ("documents", lambda word: {"documents": ["x", {"text": word}]}),
    ("variables of a prompt", lambda word: {"prompt": {"id": "p", "variables": {"a": word}}}),
    ("a custom tool's call", lambda word: {"input": [{"type": "custom_tool_call", "input": word}]}),
    ("a summary of reasoning", lambda word: {"input": [{"summary": [{"type": "summary_text", "text": word}]}]}),
    ("messages, as vLLM embeds them", lambda word: {"messages": [{"role": "user", "content": word}]}),
]
PLACES = [
    pytest.param(shape, place, id=f"{shape.__name__.rpartition('.')[2]}: {name}")
    for shape, places in ((chat, CHAT_PLACES), (text, TEXT_PLACES), (plain, PLAIN_PLACES))
    for name, place in places
]


@pytest.mark.parametrize(("shape", "place"), PLACES)
def test_text_is_found_wherever_a_request_carries_it(shape, place):
    data = place("Hello world")
    before = copy.deepcopy(data)
    assert "Hello world" in shape.prompt_text(data).splitlines()
    assert data == before


@calm
@given(st.lists(st.tuples(st.sampled_from([place for _, place in CHAT_PLACES]), WORD), max_size=6))
def test_all_texts_of_a_chat_are_found(placed):
    data: dict[str, list] = {"messages": [], "tools": [], "functions": [], "prediction": []}
    for place, word in placed:
        for name, value in place(word).items():
            data[name] += common.objects(value)
    found = chat.prompt_text(data).splitlines()
    assert sorted(found) == sorted(word for _, word in placed)


@calm
@given(st.recursive(WORD, lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"text": inner})))
def test_parts_are_read_at_any_depth(content):
    def words(value):
        if isinstance(value, str):
            return value
        return "".join(map(words, value if isinstance(value, list) else value.values()))

    assert common.joined(content) == words(content)


def test_parts_of_one_message_run_on_and_messages_do_not():
    data = {"messages": [{"content": [text_part("Hello "), text_part("world")]}, {"content": "hel"}, {"content": "lo"}]}
    assert chat.prompt_text(data) == "Hello world\nhel\nlo"


TEXTLESS: list = [
    None,
    1,
    True,
    1.5,
    [1, 2],
    [[1], [2]],
    [None],
    {},
    [{}],
    [[]],
    [{"type": "image_url", "image_url": "u"}],
]


@pytest.mark.parametrize("value", TEXTLESS, ids=repr)
@pytest.mark.parametrize("shape", [chat, text, plain], ids=["chat", "text", "plain"])
def test_what_has_no_text_is_no_mistake(shape, value):
    names = ("messages", "tools", "functions", "prediction", "prompt", "suffix", "input", "instructions", "query")
    assert shape.prompt_text({}) == ""
    assert shape.prompt_text(dict.fromkeys(names, value)) == ""
    assert shape.prompt_text({"messages": [{"content": value, "tool_calls": value, "function_call": value}]}) == ""
    assert chat.prompt_text({"tools": [{"function": value, "custom": {"description": 1}}]}) == ""


ALIASES = {
    "completion": ({"messages": [{"content": "Hello world"}]}, ["completion", "acompletion"]),
    "text_completion": ({"prompt": ["Hello world"]}, ["text_completion", "atext_completion"]),
    "embeddings": ({"input": ["Hello world"]}, ["embeddings", "aembeddings", "embedding", "aembedding"]),
    "image_generation": ({"prompt": "Hello world"}, ["image_generation", "aimage_generation"]),
    "moderation": ({"input": [text_part("Hello world")]}, ["moderation", "amoderation"]),
    "audio_transcription": (
        {"prompt": "Hello world"},
        ["audio_transcription", "aaudio_transcription", "transcription", "atranscription"],
    ),
    "responses": ({"input": [{"role": "user", "content": [{"text": "Hello world"}]}]}, ["responses", "aresponses"]),
    "anthropic_messages": (
        {"system": "x", "messages": [{"content": [text_part("Hello world")]}]},
        ["anthropic_messages"],
    ),
    "not known": ({"messages": [{"content": "Hello world"}], "input": "x"}, ["", "whatever", "pass_through_endpoint"]),
}


@pytest.mark.parametrize(
    ("data", "call_type"), [(data, alias) for data, aliases in ALIASES.values() for alias in aliases]
)
def test_every_alias_of_a_call_type_reads_its_prompt(data, call_type):
    """litellm's own is silent for `atext_completion`, `aembedding` and others."""

    class CallTypes(Enum):
        one = call_type

    assert "Hello world" in get_formatted_prompt(data=data, call_type=call_type).splitlines()
    assert get_formatted_prompt(data, CallTypes.one) == get_formatted_prompt(data, call_type)


def test_the_call_type_may_be_left_out():
    assert get_formatted_prompt({"messages": [{"content": "hi"}]}) == "hi"


def test_a_prompt_that_is_not_there_is_no_text():
    assert get_formatted_prompt(data={}, call_type="completion") == ""
    assert get_formatted_prompt(data={}, call_type="whatever") == ""


COUNTS: list = [
    (None, 1),
    (1, 1),
    (3, 3),
    (128, 128),
    (129, 1),
    (0, 1),
    (-1, 1),
    ("3", 1),
    (2.0, 1),
    ([], 1),
    (True, 1),
]


@pytest.mark.parametrize(("n", "count"), COUNTS)
def test_as_many_choices_as_the_client_expects(n, count):
    """What OpenAI refuses as `n` is answered with one choice."""
    body = chat.rejection({"model": "m", "n": n}, "no", id="1", created=1)
    assert [choice["index"] for choice in body["choices"]] == list(range(count))
    assert common.choice_count({"n": n}) == count


PROMPTS = [(None, 1), ("a", 1), ([], 1), ([1, 2, 3], 1), (["a"], 1), (["a", "b"], 2), ([[1, 2], [3]], 2)]


@pytest.mark.parametrize(("prompt", "count"), PROMPTS, ids=repr)
def test_every_prompt_is_answered_n_times(prompt, count):
    for n in (1, 3):
        body = text.rejection({"model": "m", "prompt": prompt, "n": n}, "no", id="1", created=1)
        assert [choice["index"] for choice in body["choices"]] == list(range(count * n))


def test_a_rejection_of_very_many_prompts_is_bounded():
    body = text.rejection({"prompt": ["a"] * 20_000, "n": 128}, "", id="1", created=1)
    assert len(body["choices"]) <= common.MAX_CHOICES


@pytest.mark.parametrize("model", [None, 1, [], {"a": 1}], ids=repr)
def test_a_model_that_is_no_name_is_echoed_as_none(model):
    assert chat.rejection({"model": model}, "no", id="1", created=1)["model"] == ""


@pytest.mark.parametrize(
    "options", [None, True, [], {}, {"include_usage": False}, {"include_usage": "true"}, {"include_usage": 1}], ids=repr
)
@pytest.mark.parametrize("shape", [chat, text], ids=["chat", "text"])
def test_a_usage_chunk_is_sent_only_when_asked_for(shape, options):
    data = {"model": "m", "stream_options": options}
    assert not any("usage" in chunk for chunk in shape.rejection_chunks(data, "no", id="1", created=1))


def test_an_endpoint_without_text_has_no_words_to_refuse_with():
    assert plain.rejection({}, "no", id="1", created=1) is None
    assert list(plain.rejection_chunks({}, "no", id="1", created=1)) == []
