"""A response is a dict and an object at once, and what is written either way is one value."""

from __future__ import annotations

import copy
import pickle
from collections import ChainMap, OrderedDict, UserDict
from types import MappingProxyType, SimpleNamespace

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_llm_gate.record import Record, as_record
from asgi_llm_gate.shapes import chat

# Names that are fields: not Python's own, not a dict's methods, not private.
NAMES = st.sampled_from(["id", "model", "choices", "message", "content", "object", "type", "index"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
OBJECTS = st.dictionaries(NAMES, JSON, max_size=4)

# A loaded machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Chunk(Record):
    known = frozenset({"content", "delta"})


def plain(value):
    """The value with no record left in it."""
    return orjson.loads(orjson.dumps(value))


def records_only(value):
    """No dict at any depth is a plain one."""
    if isinstance(value, dict):
        return isinstance(value, Record) and all(map(records_only, value.values()))
    return not isinstance(value, list) or all(map(records_only, value))


@calm
@given(OBJECTS)
def test_a_record_is_the_json_it_was_made_from(data):
    before = orjson.dumps(data)
    record = as_record(data)
    assert records_only(record)
    assert orjson.dumps(record) == before == record.model_dump_json().encode()
    assert type(record.model_dump()) is dict
    assert record.model_dump() == plain(record)
    for name, value in record.items():
        assert getattr(record, name) is value


@calm
@given(OBJECTS, st.lists(st.tuples(NAMES, JSON), max_size=5))
def test_edits_by_item_and_by_attribute_agree(data, edits):
    by_item, by_attribute = as_record(copy.deepcopy(data)), as_record(copy.deepcopy(data))
    for name, value in edits:
        by_item[name] = copy.deepcopy(value)
        setattr(by_attribute, name, copy.deepcopy(value))
        assert getattr(by_item, name) == by_attribute[name] == value
    assert orjson.dumps(by_item) == orjson.dumps(by_attribute) == orjson.dumps({**data, **dict(edits)})
    assert records_only(by_item)
    for name in {name for name, _ in edits}:
        del by_item[name]
        delattr(by_attribute, name)
    assert by_item == by_attribute


@calm
@given(OBJECTS, OBJECTS)
def test_a_copy_with_changes_leaves_the_original_alone(data, update):
    record = as_record(data)
    before = orjson.dumps(record)
    for deep in (False, True):
        changed = record.model_copy(update=copy.deepcopy(update), deep=deep)
        assert plain(changed) == {**plain(record), **update}
        assert records_only(changed)
    assert orjson.dumps(record) == before


def test_nested_values_are_read_and_written_through():
    response = as_record({"choices": [{"message": {"content": "hi"}}]}, chat.Response)
    response.choices[0].message.content = "ho"
    response["choices"][0]["message"]["role"] = "assistant"
    response.usage = {"total_tokens": 3}
    assert response.usage.total_tokens == 3
    assert plain(response) == {
        "choices": [{"message": {"content": "ho", "role": "assistant"}}],
        "usage": {"total_tokens": 3},
    }


def test_a_field_the_shape_knows_reads_as_none_when_it_is_lacking():
    """`chunk.choices[0].delta.content` holds on a finish chunk."""
    chunk = as_record({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, chat.Response)
    assert chunk.choices[0].delta.content is None
    assert chunk.usage is None
    assert "usage" not in chunk


def test_a_field_that_nobody_knows_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="Chunk has no field 'contents'"):
        _ = Chunk().contents
    with pytest.raises(AttributeError, match="Chunk has no field 'content'"):
        del Chunk().content
    assert getattr(Chunk(), "contents", "default") == "default"


def test_private_attributes_never_reach_the_wire():
    record = Record(a=1)
    record._state = {"seen": True}
    assert record._state == {"seen": True}
    assert record.model_dump_json() == '{"a":1}'


def test_parts_added_to_a_record_are_of_its_kind():
    record = as_record({}, Chunk)
    record.delta = {"delta": [{}]}
    assert type(record.delta) is type(record.delta.delta[0]) is Chunk
    assert record.delta.content is None
    assert type(record.model_copy()) is Chunk


def test_a_record_within_stays_the_same_object():
    inner = Chunk(content="a")
    outer = as_record({"x": 1})
    outer.inner = inner
    assert outer["inner"] is inner


def test_lists_are_changed_in_place():
    choices = [{"a": 1}, [{"b": 2}], 3]
    assert as_record(choices) is choices
    assert choices[0].a == 1
    assert choices[1][0].b == 2


def test_an_object_with_model_dump_is_dumped():
    """What a hook returns may be of another library: OpenAI's own classes, pydantic's, LiteLLM's."""
    theirs = SimpleNamespace(model_dump=lambda: {"choices": [{"index": 0}]})
    assert as_record(theirs).choices[0].index == 0
    record = Record()
    record.response = theirs
    assert record.response.choices[0].index == 0


def test_options_of_a_dump_are_taken():
    assert Record(a=1).model_dump(mode="json", exclude_none=True) == {"a": 1}
    assert Record(a=1).model_dump_json(indent=None) == '{"a":1}'


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))],
    ids=["copy", "deep", "pickle"],
)
def test_python_can_copy_a_record(copied):
    record = as_record({"choices": [{"index": 0}]}, Chunk)
    twin = copied(record)
    assert type(twin) is Chunk
    assert twin == record
    assert twin is not record


@pytest.mark.parametrize("kind", [OrderedDict, MappingProxyType, UserDict, ChainMap])
def test_any_mapping_becomes_a_record(kind):
    record = as_record(kind({"choices": [kind({"index": 0})]}), Chunk)
    assert record.choices[0].index == 0
    assert record.choices[0].content is None
    assert record.model_dump_json() == '{"choices":[{"index":0}]}'


WRITES = {
    "update": lambda record: record.update({"delta": {}}),
    "update by name": lambda record: record.update(delta={}),
    "update by pairs": lambda record: record.update([("delta", {})]),
    "setdefault": lambda record: record.setdefault("delta", {}),
    "in place": lambda record: record.__ior__({"delta": {}}),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_way_to_write_into_a_dict_makes_records(write):
    record = Chunk()
    write(record)
    assert record.delta.content is None


def test_setdefault_keeps_what_is_there():
    record = Chunk(content="a")
    assert record.setdefault("content", "b") == "a"
    assert record.setdefault("model") is None
    assert record == {"content": "a", "model": None}


def test_what_was_put_inside_by_a_list_is_converted_anew():
    record = as_record({"choices": []}, Chunk)
    record.choices.append({"delta": {}})
    assert as_record(record, Chunk) is record
    assert record.choices[0].delta.content is None


def test_hidden_params_are_a_dict_that_stays_hidden():
    record = Record(a=1)
    record._hidden_params["model_id"] = "m"
    assert record._hidden_params == {"model_id": "m"}
    assert record == {"a": 1}
