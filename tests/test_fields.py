"""A call must say who its user is, with something that a reader would see."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.fields import is_visible, require, require_user

# A loaded machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BLANK = "\u115f\u1160\u2800\u3164\uffa0"
INVISIBLE = [
    ("nothing", ""),
    ("spaces", " \t\n\r\v\f"),
    ("wide spaces", "\u00a0\u2003\u3000\u2028\u2029\u0085"),
    ("controls", "\0\x1b\x7f"),
    ("zero width", "\u200b\u200c\u200d\u2060\ufeff"),
    ("direction marks", "\u200e\u200f\u202e\u2066"),
    ("soft hyphen", "\u00ad"),
    ("tags", "\U000e0041\U000e007f"),
    ("surrogate", "\ud800"),
    ("unassigned", "\u0378\U000effff"),
    ("noncharacter", "\uffff"),
    ("blank letters", BLANK),
    ("all at once", f" \0\u200b\ud800\u0378{BLANK}"),
]


@pytest.mark.parametrize("text", [row[1] for row in INVISIBLE], ids=[row[0] for row in INVISIBLE])
def test_what_nobody_can_see_is_nobodys_name(text):
    assert not is_visible(text)
    assert is_visible(f"{text}u{text}")
    with pytest.raises(GateError):
        require_user({"user": text}, ["user"])


@pytest.mark.parametrize("text", ["u", "0", "-", ".", "é", "李", "🙂", "\u0301", "\ue000"])
def test_one_visible_character_is_enough(text):
    assert is_visible(text)
    assert require_user({"user": text}, ["user"]) == text


def naive(text):
    return [
        char
        for char in text
        if char.strip() and unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn") and char not in BLANK
    ] != []


@calm
@given(st.text(st.characters(codec=None, max_codepoint=sys.maxunicode)))
def test_visible_is_what_the_definition_says(text):
    assert is_visible(text) == naive(text)


def test_every_character_is_judged_as_the_definition_says():
    assert [point for point in range(0, sys.maxunicode, 7) if is_visible(chr(point)) != naive(chr(point))] == []


@pytest.mark.parametrize("value", [None, "", " ", 0, 1, True, 1.5, [], ["u"], {}, {"id": "u"}], ids=repr)
def test_a_user_is_a_string(value):
    for data in ({"user": value}, {}, {"User": "u"}, {"metadata": {"user": "u"}}):
        with pytest.raises(GateError) as caught:
            require_user(data, ["user"])
        error = caught.value
        assert (error.status_code, error.param, error.code) == (400, "user", "missing_required_parameter")
        assert error.message == "Missing required parameter: 'user'"
        assert error.type == "invalid_request_error"


def test_any_of_several_fields_says_who_the_user_is():
    names = ("user", "safety_identifier", "metadata.user_id")
    assert require_user({"user": "a", "safety_identifier": "b"}, names) == "a"
    assert require_user({"user": " ", "safety_identifier": "b"}, names) == "b"
    assert require_user({"metadata": {"user_id": "c"}}, iter(names)) == "c"
    with pytest.raises(GateError) as caught:
        require_user({"metadata": "c"}, names)
    assert caught.value.param == "user"
    assert caught.value.message.endswith("'user' or 'safety_identifier' or 'metadata.user_id'")


ABSENT: list = [None, "", "\u200b", [], {}]
PRESENT = ["x", 0, 0.0, False, True, 1, [None], {"a": None}]


@pytest.mark.parametrize("value", ABSENT, ids=repr)
def test_what_holds_nothing_is_lacking(value):
    with pytest.raises(GateError) as caught:
        require({"a": 1, "b": value}, ["a", "b"])
    assert (caught.value.param, caught.value.message) == ("b", "Missing required parameter: 'b'")


@pytest.mark.parametrize("value", PRESENT, ids=repr)
def test_what_holds_something_is_there(value):
    require({"a": value}, ["a"])


PARTS = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=4)


@calm
@given(PARTS, st.sampled_from(ABSENT + PRESENT), st.integers(0, 3))
def test_dotted_names_are_looked_up_level_by_level(parts, value, cut):
    """A generated name finds its value, wherever it stands, and an object cut off above it does not."""
    data = value
    for part in reversed(parts):
        data = {"other": 1, part: data}
    name = ".".join(parts)
    if value in ABSENT and not isinstance(value, bool):
        with pytest.raises(GateError) as caught:
            require(data, [name])
        assert caught.value.param == name
    else:
        require(data, [name])
    level = data
    for part in parts[: cut % len(parts)]:
        level = level[part]
    level[parts[cut % len(parts)]] = None
    with pytest.raises(GateError):
        require(data, [name])


@pytest.mark.parametrize("between", [None, "x", 1, [{"b": "x"}], {}], ids=repr)
def test_a_dotted_name_passes_through_objects_only(between):
    with pytest.raises(GateError):
        require({"a": between}, ["a.b"])


def test_nothing_is_asked_for_unless_named():
    require({}, [])
