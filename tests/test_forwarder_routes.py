from __future__ import annotations

import pytest

from asgi_llm_gate.forwarder import routes


def entry(name, model, **params):
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def read(*model_list, environ=None, headers=None):
    return routes.Routes(model_list, timeout=600.0, headers=headers or {}, environ=environ or {})


@pytest.mark.parametrize(
    ("name", "model", "asked", "sent"),
    [
        ("gpt", "gpt-4o", "gpt", "gpt-4o"),
        ("gpt", "openai/gpt-4o", "gpt", "gpt-4o"),
        ("gpt", "openai/org/gpt-4o", "gpt", "org/gpt-4o"),
        ("*", "*", "any/thing", "any/thing"),
        ("*", "openai/*", "any", "any"),
        ("openai/*", "openai/*", "openai/gpt-4o", "gpt-4o"),
        ("openai/*", "openai/*", "gpt-4o", "gpt-4o"),
        ("openai/gpt-*", "openai/gpt-*", "gpt-4o", "gpt-4o"),
        ("claude-*", "openai/vendor.claude-*-v2", "claude-x", "vendor.claude-x-v2"),
        ("a-*-b-*", "openai/*/*", "a-1-b-2", "1/2"),
        ("a-*-b-*", "openai/x-*", "a-1-b-2", "x-1"),
        ("a-*-b-*", "openai/*", "a-1-b-2", "a-1-b-2"),
        ("claude-*", "openai/fixed", "claude-x", "fixed"),
        ("exact", "openai/*", "exact", "exact"),
        ("a.c-*", "openai/*", "a.c-1", "1"),
        ("*", "*", "line\nbreak", "line\nbreak"),
        ("x-*", "openai/y*", "x-", "y"),
    ],
)
def test_asked_model_becomes_the_upstreams(name, model, asked, sent):
    """The prefix is dropped, stars are filled in order, a lone star takes the client's word."""
    assert read(entry(name, model)).pick(asked).model == sent


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("gpt", "gpt-4"),
        ("gpt-*", "my-gpt-4"),
        ("*-mini", "gpt-mini-2"),
        ("a.c-*", "abc-1"),
        ("gpt", "GPT"),
        ("*", "x" * 257),
    ],
)
def test_name_matches_whole(name, asked):
    """Neither a prefix, a suffix, another case nor an endless name matches."""
    assert read(entry(name, "openai/m")).pick(asked) is None


def test_longest_pattern_goes_first():
    """An exact name goes before patterns, a longer pattern before a shorter, in any order of the list."""
    table = read(
        entry("*", "openai/any"),
        entry("gpt-4o", "openai/exact"),
        entry("gpt-*", "openai/family"),
        entry("gpt-4*", "openai/line"),
    )
    picked = [table.pick(name).model for name in ("gpt-4o", "gpt-4x", "gpt-3", "o1")]
    assert picked == ["exact", "line", "family", "any"]


@pytest.mark.parametrize(("name", "asked"), [("gpt", "gpt"), ("gpt-*", "gpt-4")])
def test_entries_of_one_name_take_turns(name, asked):
    """Several entries of a name or a pattern share the load evenly."""
    table = read(entry(name, "a"), entry(name, "b"), entry("other", "c"))
    assert [table.pick(asked).model for _ in range(4)] == ["a", "b", "a", "b"]


def test_upstream_of_an_entry():
    """Address, key, headers and time limit are the entry's own."""
    own = {"X-Team": "b", "Authorization": "Basic x"}
    table = read(
        entry("a", "m", api_base="http://h/v1", api_key="sk-a", timeout=5),
        entry("b", "m", extra_headers=own, api_key="sk-b"),
        headers={b"x-team": b"all"},
    )
    first, second = table.pick("a").upstream, table.pick("b").upstream
    assert (first.base.origin, first.base.path, first.timeout) == ("http://h", "/v1", 5.0)
    assert first.headers == ((b"authorization", b"Bearer sk-a"), (b"x-team", b"all"))
    assert (second.base.origin, second.base.path, second.timeout) == ("https://api.openai.com", "/v1", 600.0)
    assert second.headers == ((b"authorization", b"Basic x"), (b"x-team", b"b"))
    assert not first.keep_credentials


def test_environment_fills_what_an_entry_lacks():
    """Key and address come from OpenAI's own variables."""
    environ = {"OPENAI_API_KEY": "sk-env", "OPENAI_BASE_URL": "http://env/v1"}
    upstream = read(entry("a", "m"), environ=environ).pick("a").upstream
    assert upstream.base.origin == "http://env"
    assert upstream.headers == ((b"authorization", b"Bearer sk-env"),)
    assert read(entry("a", "m")).pick("a").upstream.headers == ()


def test_only_upstream_is_known():
    """Entries that differ in nothing but the model share one upstream."""
    assert read(entry("a", "m"), entry("b", "n", timeout=1)).only.base.origin == "https://api.openai.com"
    assert read(entry("a", "m"), entry("b", "m", api_key="sk")).only is None


def test_patterns_are_not_listed():
    """The names that can be asked for as they stand are listed once each."""
    assert read(entry("a", "m"), entry("*", "*"), entry("a", "n"), entry("b", "m")).names == ("a", "b")


@pytest.mark.parametrize(
    ("model_list", "problem"),
    [
        ({}, "model_list: must be a list"),
        ("gpt", "model_list: must be a list"),
        (["gpt"], "model_list[0]: must be a mapping"),
        ([{"litellm_params": {"model": "m"}}], "model_list[0].model_name: must be"),
        ([entry("", "m")], "model_list[0].model_name: must be"),
        ([entry("a", "m"), {"model_name": "b"}], "model_list[1].litellm_params: must be"),
        ([{"model_name": "b", "litellm_params": {}}], "model_list[0].litellm_params.model: must be"),
        ([entry("a", 5)], "model_list[0].litellm_params.model: must be"),
        ([entry("a", "openai/")], "model_list[0].litellm_params.model: must be"),
        ([entry("a", "anthropic/claude")], "model_list[0].litellm_params.model: anthropic/ is not OpenAI; give"),
        ([entry("a", "x-*")], "model_list[0].litellm_params.model: has more *"),
        ([entry("a-*", "openai/*-*")], "model_list[0].litellm_params.model: has more *"),
        ([entry("a", "m", api_base="h/v1")], "model_list[0].litellm_params.api_base: must be"),
        ([entry("a", "m", api_base=["h"])], "model_list[0].litellm_params.api_base: must be text"),
        ([entry("a", "m", api_key="sk-\n")], "model_list[0].litellm_params.api_key: holds"),
        ([entry("a", "m", api_key=5)], "model_list[0].litellm_params.api_key: must be text"),
        ([entry("a", "m", extra_headers=["x"])], "model_list[0].litellm_params.extra_headers: must be"),
        ([entry("a", "m", extra_headers={1: "x"})], "model_list[0].litellm_params.extra_headers: must be"),
        ([entry("a", "m", extra_headers={"x": 1})], "model_list[0].litellm_params.extra_headers: the value"),
        ([entry("a", "m", timeout="5")], "model_list[0].litellm_params.timeout: must be"),
        ([entry("a", "m", timeout=0)], "model_list[0].litellm_params.timeout: must be"),
        ([entry("a", "m", timeout=True)], "model_list[0].litellm_params.timeout: must be"),
        ([entry("a", "m", timeout=float("nan"))], "model_list[0].litellm_params.timeout: must be"),
        ([entry("a", "m", timeout=float("inf"))], "model_list[0].litellm_params.timeout: must be"),
        ([entry("a", "m", timeout=10**400)], "model_list[0].litellm_params.timeout: must be"),
    ],
)  # fmt: skip
def test_wrong_entry_is_one_line_that_names_it(model_list, problem):
    """Each mistake is found at the start, with its place."""
    (found,) = routes.check(model_list, {})
    assert found.startswith(problem)
    assert "\n" not in found
    with pytest.raises(ValueError, match=r"^model_list") as caught:
        routes.Routes(model_list, timeout=1.0, headers={}, environ={})
    assert str(caught.value) == found


def test_every_mistake_is_listed():
    """Mistakes do not hide each other."""
    wrong = {"litellm_params": {"model": "x/y", "timeout": -1, "api_key": " "}}
    places = [problem.partition(": ")[0] for problem in routes.check([entry("a", "m"), wrong], {})]
    assert places == [
        "model_list[1].model_name",
        "model_list[1].litellm_params.model",
        "model_list[1].litellm_params.api_key",
        "model_list[1].litellm_params.timeout",
    ]


def test_foreign_provider_is_served_by_its_own_base():
    """Any server that speaks OpenAI's API will do, under any name of the model."""
    assert routes.check([entry("a", "org/model", api_base="http://h/v1")], {}) == []
