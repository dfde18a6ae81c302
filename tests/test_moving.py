"""LiteLLM's keys: which are served, which are warned of, which are refused, and what is said of each."""

from __future__ import annotations

import logging

import pytest

from asgi_llm_gate import moving
from asgi_llm_gate.config import ConfigError, load_settings
from asgi_llm_gate.litellm_keys import _FEATURES, _GUARDS, _places


def nested(place, value):
    """Return a file's content with a value at a place of the tables."""
    section, _, name = place.rpartition(".")
    if section == "model_list":
        return {"model_list": [{"model_name": "a", "litellm_params": {"model": "a"}, name: value}]}
    if section == "model_list.litellm_params":
        return {"model_list": [{"model_name": "a", "litellm_params": {"model": "a", name: value}}]}
    if section == "litellm_settings.cache_params":
        return {"litellm_settings": {"cache_params": {"type": "local", name: value}}}
    return {section: {name: value}} if section else {name: value}


def told(content, caplog):
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    load_settings(content, {}, {})
    return caplog.messages


@pytest.mark.parametrize(("place", "instead"), _places(_FEATURES).items())
def test_what_is_not_served_is_one_warning_that_says_what_there_is_instead(place, instead, caplog):
    (line,) = told(nested(place, True), caplog)
    where = place.replace("model_list.", "model_list[0].")
    assert line == f"{where} is not a setting of the gate; {instead}"


@pytest.mark.parametrize(("place", "instead"), _places(_GUARDS).items())
def test_what_guards_something_is_refused_unless_it_is_off_or_empty(place, instead, caplog):
    where = place.replace("model_list.", "model_list[0].")
    with pytest.raises(ConfigError) as caught:
        load_settings(nested(place, ["a"]), {}, {})
    assert str(caught.value) == f"{where}: not served by this version; {instead}"
    for harmless in (False, None, [], {}):
        caplog.clear()
        assert told(nested(place, harmless), caplog) == [f"{where} is not a setting of the gate; {instead}"]


def test_the_report_lists_each_key_once():
    """What is served, what is not, and what there is instead; the gate's own section is no matter."""
    entry = {"model_name": "a", "litellm_params": {"model": "a", "rpm": 5}, "model_info": {}}
    content = {
        "environment_variables": {"A": "b"},
        "model_list": [entry, entry],
        "litellm_settings": {"drop_params": True, "cache_params": {"type": "local", "ttl": 5}},
        "general_settings": {"master_key": "sk-1", "a\nb": 1},
        "router_settings": None,
        "gate_settings": {"hook_timeout": 3},
    }
    blank, *lines = moving.report(content)
    assert blank == ""
    assert [" ".join(line.split()) for line in lines] == [
        "LITELLM'S KEY SERVED INSTEAD",
        "environment_variables yes",
        "model_list yes",
        "model_list[].model_info no nothing of it is needed",
        "model_list[].litellm_params.rpm no entries of one name share the load in turn, without limits",
        "litellm_settings.drop_params no the upstream gets the body as the hooks leave it",
        "litellm_settings.cache_params yes",
        "litellm_settings.cache_params.ttl no answers are not cached; handlers give a ttl with each value",
        "general_settings.master_key yes",
        "general_settings.a\\nb no -",
        "router_settings no a call goes to one upstream, once: there are no retries, fallbacks or cooldowns",
    ]
    assert "sk-1" not in "\n".join(lines)


@pytest.mark.parametrize("content", [{}, {"gate_settings": {"strict": False}}])
def test_a_file_without_litellms_sections_has_no_report(content):
    assert list(moving.report(content)) == []


def test_empty_sections_are_no_mistake():
    content = {"litellm_settings": None, "general_settings": None, "model_list": []}
    assert len(list(moving.report(content))) == 3
