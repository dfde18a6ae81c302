from __future__ import annotations

import importlib
import inspect
import json
import logging
import subprocess
import sys
import typing
from pathlib import Path

import fastapi
import pytest
from starlette.requests import Request
from starlette.responses import Response

from asgi_llm_gate import CallHooks, DualCache, UserAPIKeyAuth, get_formatted_prompt, litellm_errors
from asgi_llm_gate.cache import InMemoryCache
from asgi_llm_gate.errors import intended
from asgi_llm_gate.litellm_guardrail import CustomGuardrail, GuardrailEventHooks
from asgi_llm_gate.litellm_names import HTTPException, importable
from asgi_llm_gate.loading import LoadError, as_callback, load
from asgi_llm_gate.record import Record

HANDLERS = Path(__file__).parent / "handlers"
NAMES = ("rewriting", "moderating", "refusing")


class Without:
    """A finder as if some packages were not installed."""

    def __init__(self, finder, packages):
        self.finder = finder
        self.packages = packages

    def find_spec(self, fullname, path=None, target=None):
        hidden = fullname.partition(".")[0] in self.packages
        return None if hidden else self.finder.find_spec(fullname, path, target)


@pytest.fixture(autouse=True)
def _modules():
    """Leave `sys.modules` and `sys.meta_path` as they were."""
    modules, finders = dict(sys.modules), list(sys.meta_path)
    yield
    sys.modules.clear()
    sys.modules.update(modules)
    assert sys.meta_path == finders


@pytest.fixture
def bare(monkeypatch):
    """Python as if neither litellm nor fastapi were installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"litellm", "fastapi"}]:
        monkeypatch.delitem(sys.modules, name)
    hiding = [Without(finder, {"litellm", "fastapi"}) for finder in sys.meta_path]
    finders = list(sys.meta_path)
    sys.meta_path[:] = hiding
    yield
    sys.meta_path[:] = finders


def handler_of(folder: Path, text: str):
    """Load a handler file's `handler`."""
    (folder / "handler_file.py").write_text(text)
    return load("handler_file.handler", folder)


SERVED = {
    "litellm.integrations.custom_logger.CustomLogger": CallHooks,
    "litellm.proxy.proxy_server.UserAPIKeyAuth": UserAPIKeyAuth,
    "litellm.proxy.proxy_server.DualCache": DualCache,
    "litellm.proxy._types.UserAPIKeyAuth": UserAPIKeyAuth,
    "litellm.caching.DualCache": DualCache,
    "litellm.caching.caching.DualCache": DualCache,
    "litellm.caching.dual_cache.DualCache": DualCache,
    "litellm.caching.in_memory_cache.InMemoryCache": InMemoryCache,
    "litellm.caching.InMemoryCache": InMemoryCache,
    "litellm.ModelResponse": Record,
    "litellm.types.utils.ModelResponse": Record,
    "litellm.types.utils.ModelResponseStream": Record,
    "litellm.types.utils.Choices": Record,
    "litellm.utils.Choices": Record,
    "litellm.utils.ModelResponse": Record,
    **{f"litellm.types.utils.{name}": Record for name in ("StreamingChoices", "Usage", "Delta")},
    "litellm.TextCompletionResponse": Record,
    "litellm.types.llms.openai.ResponsesAPIResponse": Record,
    "litellm.RejectedRequestError": litellm_errors.RejectedRequestError,
    "litellm.exceptions.RejectedRequestError": litellm_errors.RejectedRequestError,
    "litellm.exceptions.BadRequestError": litellm_errors.BadRequestError,
    "litellm.exceptions.RateLimitError": litellm_errors.LiteLLMError,
    "litellm.exceptions.GuardrailRaisedException": litellm_errors.GuardrailRaisedException,
    "litellm.exceptions.BlockedPiiEntityError": litellm_errors.BlockedPiiEntityError,
    "litellm.exceptions.ModifyResponseException": litellm_errors.ModifyResponseException,
    "litellm.integrations.custom_guardrail.ModifyResponseException": litellm_errors.ModifyResponseException,
    "litellm.integrations.custom_guardrail.CustomGuardrail": CustomGuardrail,
    "litellm.proxy._types.ProxyException": litellm_errors.ProxyException,
    "litellm.types.guardrails.GuardrailEventHooks": GuardrailEventHooks,
    "litellm.types.utils.CallTypes": str,
    "litellm.types.utils.GenericGuardrailAPIInputs": dict,
    "litellm.types.llms.openai.AllMessageValues": dict,
    "fastapi.Response": Response,
    "fastapi.HTTPException": HTTPException,
    "fastapi.exceptions.HTTPException": HTTPException,
    "fastapi.Request": Request,
}


@pytest.mark.parametrize(("name", "kind"), SERVED.items(), ids=list(SERVED))
def test_a_name_of_litellm_is_the_gates_own_class(name, kind, bare, tmp_path):
    module, _, attribute = name.rpartition(".")
    assert issubclass(handler_of(tmp_path, f"from {module} import {attribute} as handler"), kind)


def test_the_functions_and_loggers_are_there_too(bare, tmp_path):
    text = """
import litellm
from litellm._logging import verbose_logger, verbose_proxy_logger
from litellm.types.utils import CallTypesLiteral
from litellm.utils import get_formatted_prompt
from litellm.litellm_core_utils.llm_response_utils.get_formatted_prompt import get_formatted_prompt as the_same
assert the_same is get_formatted_prompt
from litellm.integrations.custom_guardrail import log_guardrail_information
from litellm.proxy.common_utils.callback_utils import add_guardrail_to_applied_guardrails_header
from litellm._logging import verbose_router_logger
from fastapi import status
assert status.HTTP_403_FORBIDDEN == 403
verbose_proxy_logger.debug("loaded")
handler = (get_formatted_prompt, verbose_logger, typing.Optional[CallTypesLiteral])
"""
    prompt, logger, annotation = handler_of(tmp_path, f"import typing\n{text}")
    assert prompt is get_formatted_prompt
    assert isinstance(logger, logging.Logger)
    assert annotation == typing.Optional[str]  # noqa: UP045  # as a handler writes it


@pytest.mark.parametrize("arguments", ["", "True", "turn_off_message_logging=True, message_logging=False, other=1"])
def test_the_base_class_takes_any_arguments(arguments, bare, tmp_path):
    text = f"""
from litellm.integrations.custom_logger import CustomLogger

class Handler(CustomLogger):
    def __init__(self):
        super().__init__({arguments})

    async def async_pre_call_hook(self, data): ...

handler = Handler()
"""
    handler = handler_of(tmp_path, text)
    assert as_callback(handler) is handler


def test_a_secret_is_an_environment_variable(bare, tmp_path, monkeypatch):
    monkeypatch.setenv("GUARD_KEY", "swordfish")
    text = """
from litellm.secret_managers.main import get_secret_str
names = ("GUARD_KEY", "os.environ/GUARD_KEY", "NO_SUCH_KEY")
handler = [get_secret_str(name) for name in names] + [get_secret_str("NO_SUCH_KEY", "none")]
"""
    assert handler_of(tmp_path, text) == ["swordfish", "swordfish", None, "none"]


def test_a_submodule_is_found_as_an_attribute(bare, tmp_path):
    text = "import litellm.integrations.custom_logger\nhandler = litellm.integrations.custom_logger.CustomLogger"
    assert issubclass(handler_of(tmp_path, text), CallHooks)


def test_settings_of_litellm_may_be_written(bare, tmp_path):
    assert handler_of(tmp_path, "import litellm\nlitellm.drop_params = True\nhandler = litellm.drop_params") is True


UNKNOWN = {
    "from litellm import acompletion": ("litellm.acompletion", "litellm"),
    "import litellm.router": ("litellm.router", "litellm"),
    "from litellm.router import Router": ("litellm.router", "litellm"),
    "from litellm.utils import token_counter": ("litellm.utils.token_counter", "litellm"),
    "from litellm.caching import RedisCache": ("litellm.caching.RedisCache", "litellm"),
    "import fastapi.routing": ("fastapi.routing", "fastapi"),
    "from fastapi import APIRouter": ("fastapi.APIRouter", "fastapi"),
}


@pytest.mark.parametrize(("text", "lacking"), UNKNOWN.items(), ids=list(UNKNOWN))
def test_a_name_the_gate_lacks_fails_at_import_and_says_what_to_install(text, lacking, bare, tmp_path):
    name, package = lacking
    message = f"the gate does not stand in for {name}: install {package} to use it"
    with pytest.raises(LoadError) as caught:
        handler_of(tmp_path, text)
    assert str(caught.value).endswith(message)
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_file_may_do_without_what_it_can_not_import(bare, tmp_path):
    text = "try:\n    from litellm import acompletion as handler\nexcept ImportError:\n    handler = 'without'"
    assert handler_of(tmp_path, text) == "without"


def test_a_function_the_gate_lacks_fails_when_it_is_called(bare, tmp_path):
    handler = handler_of(tmp_path, "import litellm\ndef handler():\n    return litellm.acompletion(model='m')")
    with pytest.raises(AttributeError, match=r"not stand in for litellm\.acompletion: install litellm to use it"):
        handler()


def test_a_handler_may_ask_whether_litellm_has_something(bare, tmp_path):
    text = (
        "import litellm\nhandler = [hasattr(litellm, name) for name in ('callbacks', '__version__', 'ModelResponse')]"
    )
    assert handler_of(tmp_path, text) == [False, False, True]


def test_the_names_are_gone_when_the_callbacks_are_loaded(bare, tmp_path):
    before = set(sys.modules)
    handler_of(
        tmp_path, "from litellm.proxy.proxy_server import DualCache\nfrom fastapi import HTTPException\nhandler = 1"
    )
    assert set(sys.modules) - before == {"handler_file"}
    for name in ("litellm", "fastapi", "litellm.caching"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_the_names_are_gone_when_a_file_failed(bare, tmp_path):
    before = set(sys.modules)
    with pytest.raises(LoadError):
        handler_of(tmp_path, "import litellm\nraise ValueError")
    assert set(sys.modules) == before


def test_other_packages_are_none_of_its_business(bare):
    with importable(), pytest.raises(ModuleNotFoundError, match="No module named 'litellm_enterprise'"):
        importlib.import_module("litellm_enterprise")


def test_an_installed_litellm_wins(tmp_path, monkeypatch):
    installed = tmp_path / "site" / "litellm"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("acompletion = 'the real one'")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert handler_of(tmp_path, "from litellm import acompletion as handler") == "the real one"
    assert sys.modules["litellm"].acompletion == "the real one"


def test_an_installed_litellm_is_not_mixed_with_the_gates_own(tmp_path, monkeypatch):
    """A module that an old version lacks stays lacking."""
    installed = tmp_path / "site" / "litellm"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(LoadError, match=r"No module named 'litellm\.caching'"):
        handler_of(tmp_path, "from litellm.caching.dual_cache import DualCache as handler")


PROXY = "from litellm.proxy.proxy_server import UserAPIKeyAuth, DualCache\nhandler = UserAPIKeyAuth, DualCache"


def install(site: Path, **modules: str) -> None:
    """Write a litellm of some modules, each under its name below ``litellm``, with a dot for each slash."""
    for name, text in {"__init__": "", "proxy.__init__": "", **modules}.items():
        path = site.joinpath("litellm", *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_litellm_without_what_its_proxy_needs_will_do(tmp_path, monkeypatch):
    """It has the two names that handlers import from its proxy elsewhere too."""
    site = tmp_path / "site"
    modules = {
        "proxy.proxy_server": "import no_such_server",
        "proxy._types": "class UserAPIKeyAuth: ...",
        "caching.__init__": "class DualCache: ...",
    }
    install(site, **modules)
    monkeypatch.syspath_prepend(site)
    caller, cache = handler_of(tmp_path, PROXY)
    assert (caller.__module__, cache.__module__) == ("litellm.proxy._types", "litellm.caching")
    with pytest.raises(ModuleNotFoundError, match="no_such_server"):
        importlib.import_module("litellm.proxy.proxy_server")


def test_an_installed_proxy_wins(tmp_path, monkeypatch):
    site = tmp_path / "site"
    install(site, **{"proxy.proxy_server": "UserAPIKeyAuth = DualCache = 'the real one'"})
    monkeypatch.syspath_prepend(site)
    assert handler_of(tmp_path, PROXY) == ("the real one", "the real one")
    assert importlib.import_module("litellm.proxy.proxy_server").DualCache == "the real one"


def test_an_installed_fastapi_wins(tmp_path):
    assert handler_of(tmp_path, "from fastapi import HTTPException as handler") is fastapi.HTTPException


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ({"error": "Not allowed"}, "Not allowed"),
        ({"error": {"message": "Not allowed"}}, "Not allowed"),
        ("Not allowed", "Not allowed"),
        (None, "Forbidden"),
    ],
)
def test_the_exception_takes_any_detail(detail, message):
    exc = HTTPException(status_code=403, detail=detail, headers={"x-why": "so"})
    error = intended(exc)
    assert error is not None
    assert (error.status_code, error.message, error.headers) == (403, message, {"x-why": "so"})


async def outcome_of(handlers):
    """What the page's three examples do with a greeting."""
    body = {"model": "gpt", "messages": [{"role": "user", "content": "hello world"}]}
    asked = {"user_api_key_dict": UserAPIKeyAuth(), "cache": DualCache(), "data": body, "call_type": "completion"}
    rewritten = await handlers["rewriting"].async_pre_call_hook(**asked)
    try:
        await handlers["moderating"].async_moderation_hook(data=body)
    except Exception as exc:
        error = intended(exc)
        assert error is not None
        refused = [error.status_code, error.message]
    passed = await handlers["refusing"].async_pre_call_hook(**asked)
    body["messages"][0]["content"] = "Hello world"
    return [rewritten["model"], refused, passed is body, await handlers["refusing"].async_pre_call_hook(**asked)]


EXPECTED = ["the-house-model", [400, "Not in this house"], True, "This house does not greet worlds"]


@pytest.mark.anyio
@pytest.mark.parametrize("installed", ["neither installed", "fastapi installed"])
async def test_litellms_examples_run_as_they_are_typed(installed, request):
    if installed == "neither installed":
        request.getfixturevalue("bare")
    handlers = {name: as_callback(load(f"{name}.handler", HANDLERS)) for name in NAMES}
    assert await outcome_of(handlers) == EXPECTED


@pytest.mark.anyio
async def test_all_hooks_of_the_examples_can_be_called():
    handlers = {name: load(f"{name}.handler", HANDLERS) for name in NAMES}
    rewriting, moderating = handlers["rewriting"], handlers["moderating"]
    caller, data = UserAPIKeyAuth(), {"messages": [{"content": "good morning"}]}
    await rewriting.async_post_call_success_hook(data=data, user_api_key_dict=caller, response=Record())
    await rewriting.async_moderation_hook(data=data, user_api_key_dict=caller, call_type="completion")
    await rewriting.async_post_call_streaming_hook(user_api_key_dict=caller, response="good")
    await rewriting.async_post_call_failure_hook(data, ValueError(), caller)
    assert rewriting.seen == ["success", "moderation", "streaming", "failure"]
    assert (await moderating.async_pre_call_hook(caller, DualCache(), data, "completion"))["model"] == "the-house-model"
    await moderating.async_moderation_hook(data)
    await moderating.async_log_pre_api_call("m", [], {})
    for event in ("stream", "success", "failure"):
        await getattr(moderating, f"async_log_{event}_event")({}, None, 0, 0)
    assert moderating.seen == ["before the call", "stream event", "success event", "failure event"]


SCRIPT = f"""
import asyncio, json, sys

{inspect.getsource(Without)}
sys.meta_path[:] = [Without(finder, ("litellm", "fastapi")) for finder in sys.meta_path]

from asgi_llm_gate import DualCache, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.errors import intended

{inspect.getsource(outcome_of)}
gate = LLMGate(None, config=sys.argv[1])
outcome = asyncio.run(outcome_of(dict(zip({NAMES!r}, gate.settings.callbacks))))
left = [name for name in sys.modules if name.partition(".")[0] in ("litellm", "fastapi")]
print(json.dumps([outcome, left, all(type(finder) is Without for finder in sys.meta_path)]))
"""


def test_litellms_examples_run_in_a_process_that_has_neither_litellm_nor_fastapi():
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(HANDLERS / "config.yaml")]
    done = subprocess.run(command, capture_output=True, cwd=HANDLERS.parents[1], check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [EXPECTED, [], True]
