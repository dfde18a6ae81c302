"""The names that handler files written for LiteLLM import, while they are imported.

An installed litellm or fastapi always wins: what is offered here is looked for last, and gone afterwards.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request

from asgi_llm_gate.auth import UserAPIKeyAuth
from asgi_llm_gate.cache import DualCache, InMemoryCache
from asgi_llm_gate.callhooks import CallHooks
from asgi_llm_gate.endpoints import get_formatted_prompt
from asgi_llm_gate.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class CustomLogger(CallHooks):
    """The base class of LiteLLM's handlers; it takes whatever arguments a handler passes on."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        super().__init__()


class HTTPException(StarletteHTTPException):
    """FastAPI's: its detail may be anything, most often a mapping."""

    def __init__(self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status_code, detail, headers)


_logger = logging.getLogger("asgi_llm_gate.handlers")
_RESPONSES = dict.fromkeys(("ModelResponse", "ModelResponseStream", "Choices", "Message", "EmbeddingResponse"), Record)
_CACHES = {"DualCache": DualCache, "InMemoryCache": InMemoryCache}

# Each module and what it offers; the names of its submodules are added to it.
_MODULES: Mapping[str, Mapping[str, Any]] = {
    "litellm": {"ModelResponse": Record},
    "litellm._logging": {"verbose_proxy_logger": _logger, "verbose_logger": _logger},
    "litellm.caching": _CACHES,
    "litellm.caching.caching": _CACHES,
    "litellm.caching.dual_cache": _CACHES,
    "litellm.caching.in_memory_cache": _CACHES,
    "litellm.integrations": {},
    "litellm.integrations.custom_logger": {"CustomLogger": CustomLogger},
    "litellm.proxy": {},
    "litellm.proxy._types": {"UserAPIKeyAuth": UserAPIKeyAuth},
    "litellm.proxy.proxy_server": {"UserAPIKeyAuth": UserAPIKeyAuth, "DualCache": DualCache},
    "litellm.types": {},
    "litellm.types.utils": {**_RESPONSES, "CallTypesLiteral": str},
    "litellm.utils": {**_RESPONSES, "get_formatted_prompt": get_formatted_prompt},
    "fastapi": {"HTTPException": HTTPException, "Request": Request},
    "fastapi.exceptions": {"HTTPException": HTTPException},
}


class _Module(ModuleType):
    """A module that says what to install for what it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(_lacking(f"{self.__name__}.{name}"))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
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
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        # Without its `name`, for `from … import` would take a known one for its own, and hide the message.
        raise ModuleNotFoundError(_lacking(fullname))

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])


@contextmanager
def importable() -> Iterator[None]:
    """Make the names importable for as long as the block runs; for one thread at a time."""
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if type(module) is _Module]:
            del sys.modules[name]


def _lacking(name: str) -> str:
    package = name.partition(".")[0]
    return f"the gate does not stand in for {name}: install {package} to use it"
