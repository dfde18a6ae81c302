"""Hooks that ship, by their names and options."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

import asgi_llm_gate.builtin
from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.builtin import BUILT_IN, BuiltIn
from asgi_llm_gate.config import ConfigError, load_settings
from asgi_llm_gate.hooks import check


class Guard(CallHooks):
    """Stands for a hook that ships."""

    def __init__(self, *, model, limit=3, hook_timeout=None):
        if limit == "none":
            raise ValueError("limit: expected a number, got 'none'")
        if limit == "odd":
            raise ValueError("neither this nor that")
        if limit == "library":
            raise ImportError("it needs a library: pip install 'asgi-llm-gate[pii]'")
        self.model, self.limit, self.hook_timeout = model, limit, hook_timeout

    async def async_pre_call_hook(self, data):
        """Look on."""


@pytest.fixture(autouse=True)
def guard(monkeypatch):
    module = ModuleType("a_guard_that_ships")
    module.Guard = Guard
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BUILT_IN, "guard", BuiltIn(module.__name__, "Guard"))
    monkeypatch.setitem(BUILT_IN, "timed", BuiltIn(module.__name__, "Guard", ("hook_timeout",)))
    monkeypatch.setitem(BUILT_IN, "lacking", BuiltIn("a_module_that_needs_more", "Guard"))


def app(scope, receive, send):
    """Never called."""


FORMS = {
    "a mapping": ({"litellm_settings": {"callbacks": ["guard"]}, "gate_settings": {"callback_settings": "…"}}, {}),
    "keywords": (None, {"callbacks": "guard", "callback_settings": "…"}),
    "both": ({"litellm_settings": {"callbacks": "guard"}}, {"callback_settings": "…"}),
}


@pytest.mark.parametrize(("config", "keywords"), FORMS.values(), ids=list(FORMS))
def test_a_name_becomes_a_hook_with_its_options(config, keywords):
    """Wherever the name and the options stand."""
    options = {"guard": {"model": "m", "limit": 5}}
    if config and "gate_settings" in config:
        config = {**config, "gate_settings": {"callback_settings": options}}
    if "callback_settings" in keywords:
        keywords = {**keywords, "callback_settings": options}
    gate = LLMGate(app, config=config, **keywords)
    (callback,) = gate.settings.callbacks
    assert isinstance(callback, Guard)
    assert (callback.model, callback.limit) == ("m", 5)


def test_a_keyword_has_a_hooks_options_in_place_of_the_files():
    """Name by name."""
    config = {
        "litellm_settings": {"callbacks": ["guard", "timed"]},
        "gate_settings": {"callback_settings": {"guard": {"model": "a"}, "timed": {"model": "b"}}},
    }
    settings = load_settings(config, {"callback_settings": {"guard": {"model": "c"}}})
    assert [callback.model for callback in settings.callbacks] == ["c", "b"]


def test_what_a_hook_takes_of_the_gates_settings_it_gets_unless_an_option_says_otherwise():
    """From wherever they are set."""
    config = {"litellm_settings": {"callbacks": "timed"}, "gate_settings": {"hook_timeout": 5}}
    settings = load_settings(config, {"hook_timeout": 7, "callback_settings": {"timed": {"model": "m"}}})
    assert settings.callbacks[0].hook_timeout == 7
    settings = load_settings(config, {"callback_settings": {"timed": {"model": "m", "hook_timeout": 1}}})
    assert settings.callbacks[0].hook_timeout == 1


def test_options_may_come_from_the_environment_and_are_in_no_text_of_the_settings():
    """They may be keys."""
    config = {"litellm_settings": {"callbacks": "os.environ/NAME"}}
    keywords = {"callback_settings": {"guard": {"model": "os.environ/MODEL"}}}
    settings = load_settings(config, keywords, {"MODEL": "hush", "NAME": "guard"})
    assert settings.callbacks[0].model == "hush"
    assert "hush" not in repr(settings)


MISTAKES = {
    "not an option": ({"model": "m", "limits": 1}, "guard.limits: not an option; did you mean limit?"),
    "nothing like an option": ({"model": "m", 5: 1}, "guard.5: not an option"),
    "one that is missing": ({}, "guard.model: expected a value, got nothing"),
    "a wrong value": ({"model": "m", "limit": "none"}, "guard.limit: expected a number, got 'none'"),
    "values that do not go together": ({"model": "m", "limit": "odd"}, "guard: neither this nor that"),
    "an attribute that no hook may have": (
        {"model": "m", "hook_timeout": -1},
        "guard: Guard.hook_timeout: expected seconds above 0, got -1",
    ),
    "a list": (["model"], "guard: expected options by name, got list"),
}


@pytest.mark.parametrize(("options", "what"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_wrong_option_is_one_line_with_its_path(options, what, tmp_path):
    """In a file and as a keyword; a file's line begins with its name."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"callbacks": "guard", "callback_settings": {"guard": options}})
    assert str(caught.value) == f"callback_settings.{what}"
    content = {"litellm_settings": {"callbacks": "guard"}, "gate_settings": {"callback_settings": {"guard": options}}}
    path = tmp_path / "gate.yaml"
    path.write_text(repr(content))
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert str(caught.value).replace(" gate_settings.", " ") == f"{path}: callback_settings.{what}"


def test_options_of_a_hook_that_does_not_ship_are_a_mistake():
    with pytest.raises(ConfigError) as caught:
        load_settings({"gate_settings": {"callback_settings": {"gard": {}}}}, {})
    assert str(caught.value).startswith("gate_settings.callback_settings.gard: no hook that ships; those are ")
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {"callback_settings": "guard"})
    assert str(caught.value) == "callback_settings: expected options by the names of hooks, got str"


def test_options_for_which_there_is_no_callback_are_said(caplog):
    """A guard that is configured and does not run."""
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    load_settings({"gate_settings": {"callback_settings": {"guard": {"model": "m"}}}}, {})
    assert caplog.messages == ["callback_settings.guard: there is no callback of this name"]


def test_options_of_other_handlers_in_litellms_section_are_said_to_be_theirs(caplog):
    """Only hooks that ship take them from there."""
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    load_settings({"callback_settings": {"otel": {"message_logging": False}}}, {})
    what = "is not a setting of the gate; a handler takes its settings itself"
    assert caplog.messages == [f"callback_settings.otel {what}"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("guard", "it needs a library: pip install 'asgi-llm-gate[pii]'"),
        ("lacking", "No module named 'a_module_that_needs_more'"),
    ],
)
def test_a_library_that_is_not_there_is_one_line(name, what):
    """It says what to install."""
    options = {name: {"model": "m", "limit": "library"}}
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {"callbacks": [name], "callback_settings": options})
    assert str(caught.value) == f"{name}: {what}"


def test_what_ships_can_be_imported_by_the_name_of_its_class():
    """And no more than that."""
    assert asgi_llm_gate.builtin.Guard is Guard
    with pytest.raises(AttributeError, match="has no attribute 'Guards'"):
        _ = asgi_llm_gate.builtin.Guards


def test_the_stand_in_is_a_callback():
    check(Guard(model="m"))
