"""The flat public namespace, held by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_llm_gate
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.config import Keywords, Settings

PACKAGE = Path(asgi_llm_gate.__file__).parent


def test_the_names():
    assert asgi_llm_gate.__all__ == [
        "CallHooks",
        "DualCache",
        "Forwarder",
        "LLMGate",
        "UserAPIKeyAuth",
        "get_formatted_prompt",
    ]
    namespace: dict[str, object] = {}
    exec("from asgi_llm_gate import *", namespace)  # what it offers is the point
    assert set(asgi_llm_gate.__all__) <= set(namespace)


@pytest.mark.parametrize("name", asgi_llm_gate.__all__)
def test_every_name_is_documented(name):
    value = getattr(asgi_llm_gate, name)
    assert value.__doc__
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if callable(member) and not attribute.startswith("_"):
                assert member.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("method", STAGES)
def test_the_base_class_has_each_hook_with_the_documented_arguments(method):
    hook = getattr(asgi_llm_gate.CallHooks, method)
    parameters = inspect.signature(hook).parameters
    assert {name for name in parameters if name != "self"} <= STAGES[method]
    asynchronous = inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook)
    assert asynchronous is method.startswith("async_")


def test_every_setting_is_a_keyword_and_the_other_way_round():
    assert set(Keywords.__annotations__) == {field.name for field in dataclasses.fields(Settings)}


def test_the_gate_takes_the_app_first_and_keywords_only():
    first, *rest = inspect.signature(asgi_llm_gate.LLMGate).parameters.values()
    assert (first.name, first.kind) == ("app", first.POSITIONAL_OR_KEYWORD)
    assert all(parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD} for parameter in rest)


def test_the_package_is_typed_and_knows_its_version():
    assert (PACKAGE / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", asgi_llm_gate.__version__)


def test_importing_the_package_imports_no_extra():
    """Each extra is imported where it is used."""
    extras = ("uvicorn", "aiohttp", "redis", "litellm", "fastapi", "django", "trio", "openai", "pydantic")
    code = f"import sys, asgi_llm_gate; print([name for name in {extras} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert run.stdout.strip() == "[]"


LAZY = {
    "the forwarder": ("asgi_llm_gate", "Forwarder", ["httpx", "aiohttp", "asgi_llm_gate.forwarder"]),
    "the shared cache": ("asgi_llm_gate.cache", "RedisCache", ["redis", "asgi_llm_gate.cache.redis"]),
}


@pytest.mark.parametrize(("module", "name", "costs"), LAZY.values(), ids=LAZY)
def test_what_not_every_gate_needs_is_imported_when_it_is_asked_for(module, name, costs):
    """`import asgi_llm_gate` takes no HTTP client and no Redis; what is not there is no attribute."""
    code = f"import sys, {module} as found; print([each for each in {costs} if each in sys.modules]); found.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="nothing"):
        getattr(importlib.import_module(module), "nothing")  # noqa: B009  # it is not there
