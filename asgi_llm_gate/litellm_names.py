"""The names that handler files written for LiteLLM import, while they are imported.

An installed litellm or fastapi always wins: what is offered here is looked for last, and gone afterwards.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starlette import status
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response

from asgi_llm_gate.auth import UserAPIKeyAuth
from asgi_llm_gate.cache import DualCache, InMemoryCache
from asgi_llm_gate.endpoints import get_formatted_prompt
from asgi_llm_gate.litellm_errors import EXCEPTIONS, ModifyResponseException, ProxyException
from asgi_llm_gate.litellm_guardrail import (
    CustomGuardrail,
    CustomLogger,
    GuardrailEventHooks,
    add_guardrail_to_applied_guardrails_header,
    log_guardrail_information,
)
from asgi_llm_gate.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class HTTPException(StarletteHTTPException):
    """FastAPI's: its detail may be anything, most often a mapping."""

    def __init__(self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code, detail, headers)


class CallTypes(StrEnum):
    """LiteLLM's words for the types of calls."""

    completion = "completion"
    acompletion = "acompletion"
    text_completion = "text_completion"
    atext_completion = "atext_completion"
    embedding = "embedding"
    aembedding = "aembedding"
    image_generation = "image_generation"
    aimage_generation = "aimage_generation"
    moderation = "moderation"
    amoderation = "amoderation"
    transcription = "transcription"
    atranscription = "atranscription"
    speech = "speech"
    aspeech = "aspeech"
    rerank = "rerank"
    arerank = "arerank"
    responses = "responses"
    aresponses = "aresponses"
    anthropic_messages = "anthropic_messages"


def get_secret_str(secret_name: str, default_value: str | None = None) -> str | None:
    """Return an environment variable, as LiteLLM does where no secret manager is set up."""
    return os.environ.get(secret_name.removeprefix("os.environ/"), default_value)


_logger = logging.getLogger("asgi_llm_gate.handlers")
_LOGGERS = dict.fromkeys(("verbose_logger", "verbose_proxy_logger", "verbose_router_logger"), _logger)
_RESPONSES = dict.fromkeys(
    (
        *("ModelResponse", "ModelResponseStream", "Choices", "StreamingChoices", "Message", "Delta", "Usage"),
        *("EmbeddingResponse", "ImageResponse", "TextCompletionResponse", "TextChoices"),
    ),
    Record,
)
# Names of annotations.
_TYPED = {
    "CallTypesLiteral": str,
    **dict.fromkeys(("LLMResponseTypes", "StandardLoggingPayload", "GenericGuardrailAPIInputs"), dict),
    "StandardLoggingGuardrailInformation": dict,
}
_CACHES = {"DualCache": DualCache, "InMemoryCache": InMemoryCache}
_CALLER = {"UserAPIKeyAuth": UserAPIKeyAuth}
_PROMPT = {"get_formatted_prompt": get_formatted_prompt}
_GUARDRAIL = {
    "CustomGuardrail": CustomGuardrail,
    "ModifyResponseException": ModifyResponseException,
    "log_guardrail_information": log_guardrail_information,
}

# Each module and what it offers; the names of its submodules are added to it.
_MODULES: Mapping[str, Mapping[str, Any]] = {
    "litellm": {**_RESPONSES, **EXCEPTIONS, "DualCache": DualCache, "get_secret_str": get_secret_str},
    "litellm._logging": _LOGGERS,
    "litellm.caching": _CACHES,
    "litellm.caching.caching": _CACHES,
    "litellm.caching.dual_cache": _CACHES,
    "litellm.caching.in_memory_cache": _CACHES,
    "litellm.exceptions": EXCEPTIONS,
    "litellm.integrations": {},
    "litellm.integrations.custom_guardrail": _GUARDRAIL,
    "litellm.integrations.custom_logger": {"CustomLogger": CustomLogger},
    "litellm.litellm_core_utils": {},
    "litellm.litellm_core_utils.llm_response_utils": {},
    "litellm.litellm_core_utils.llm_response_utils.get_formatted_prompt": _PROMPT,
    "litellm.proxy": {},
    "litellm.proxy._types": {**_CALLER, "ProxyException": ProxyException},
    "litellm.proxy.common_utils": {},
    "litellm.proxy.common_utils.callback_utils": {
        "add_guardrail_to_applied_guardrails_header": add_guardrail_to_applied_guardrails_header
    },
    "litellm.proxy.proxy_server": {**_CALLER, "DualCache": DualCache, "ProxyException": ProxyException},
    "litellm.secret_managers": {},
    "litellm.secret_managers.main": {"get_secret_str": get_secret_str},
    "litellm.types": {},
    "litellm.types.guardrails": {"GuardrailEventHooks": GuardrailEventHooks},
    "litellm.types.llms": {},
    "litellm.types.llms.openai": {"AllMessageValues": dict, "ResponsesAPIResponse": Record},
    "litellm.types.utils": {**_RESPONSES, **_TYPED, "CallTypes": CallTypes},
    "litellm.utils": {**_RESPONSES, **_PROMPT},
    "fastapi": {"HTTPException": HTTPException, "Request": Request, "Response": Response, "status": status},
    "fastapi.exceptions": {"HTTPException": HTTPException},
}


class _Module(ModuleType):
    """A module that says what to install for what it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(_lacking(f"{self.__name__}.{name}"))


class _Finder:
    """Finds the modules of the table, all as packages: Python then asks for each name of a ``from … import`` too."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package not in _MODULES:
            return None
        if fullname != package and not isinstance(sys.modules.get(package), _Module):
            return None  # an installed package, of a version that lacks this module
        if fullname in _MODULES:
            loader: Any = self
            return importlib.machinery.ModuleSpec(fullname, loader, is_package=True)
        # Without its `name`, for `from … import` would take a known one for its own, and hide the message.
        raise ModuleNotFoundError(_lacking(fullname))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])


_PROXY_SERVER = "litellm.proxy.proxy_server"


class _ProxyServerFinder:
    """Finds an installed LiteLLM's proxy, and makes do where what that needs beside LiteLLM is not installed.

    Handlers import the proxy's module for two names, which LiteLLM has elsewhere too.
    """

    def __init__(self) -> None:
        self._loader: Any = None
        self._makeshift: ModuleType | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == _PROXY_SERVER else None
        if spec is not None:
            own: Any = self
            self._loader, spec.loader = spec.loader, own
        return spec

    def create_module(self, _spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None  # noqa: S101  # `find_spec` came first
        try:
            self._loader.exec_module(module)
        except ImportError:
            self._makeshift = module
            module.UserAPIKeyAuth = importlib.import_module("litellm.proxy._types").UserAPIKeyAuth  # type: ignore[attr-defined]
            module.DualCache = importlib.import_module("litellm.caching").DualCache  # type: ignore[attr-defined]

    def forget(self) -> None:
        """Take what was made do with out of sight."""
        if self._makeshift is not None:
            sys.modules.pop(_PROXY_SERVER, None)
            vars(sys.modules["litellm.proxy"]).pop("proxy_server", None)


@contextmanager
def importable() -> Iterator[None]:
    """Make the names importable for as long as the block runs; for one thread at a time."""
    finder, proxy = _Finder(), _ProxyServerFinder()
    sys.meta_path.insert(0, proxy)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(proxy)
        sys.meta_path.remove(finder)
        proxy.forget()
        for name in [name for name, module in sys.modules.items() if type(module) is _Module]:
            del sys.modules[name]


def _lacking(name: str) -> str:
    package = name.partition(".")[0]
    return f"the gate does not stand in for {name}: install {package} to use it"
