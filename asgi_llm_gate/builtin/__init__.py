"""The hooks that ship, each by its name in `callbacks`; a module is imported when its hook is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_llm_gate.builtin.banned_keywords import BannedKeywords
    from asgi_llm_gate.builtin.blocked_users import BlockedUserCheck
    from asgi_llm_gate.builtin.limiter import ParallelRequestLimiter
    from asgi_llm_gate.builtin.llamaguard import LlamaGuardModerations
    from asgi_llm_gate.builtin.openai_moderations import OpenAIModerations

__all__ = [
    "BUILT_IN",
    "BannedKeywords",
    "BlockedUserCheck",
    "BuiltIn",
    "LlamaGuardModerations",
    "OpenAIModerations",
    "ParallelRequestLimiter",
]


class BuiltIn(NamedTuple):
    """A hook that ships.

    Its class takes its options by keyword. What is wrong with one is a ``ValueError`` that begins with its name and a
    colon; a library that is not installed is an ``ImportError`` of one line that says what to install.

    Attributes:
        module: Where its class is.
        kind: The class's name.
        settings: The gate's settings that it takes too, by keywords of the same names; an option wins.
    """

    module: str
    kind: str
    settings: tuple[str, ...] = ()

    def load(self) -> type:
        """Return the class."""
        kind: type = getattr(importlib.import_module(self.module), self.kind)
        return kind


# In the order of the documentation.
BUILT_IN: Mapping[str, BuiltIn] = {
    "llamaguard_moderations": BuiltIn("asgi_llm_gate.builtin.llamaguard", "LlamaGuardModerations"),
    "openai_moderations": BuiltIn("asgi_llm_gate.builtin.openai_moderations", "OpenAIModerations"),
    "banned_keywords": BuiltIn("asgi_llm_gate.builtin.banned_keywords", "BannedKeywords"),
    "blocked_user_check": BuiltIn("asgi_llm_gate.builtin.blocked_users", "BlockedUserCheck"),
    "parallel_request_limiter": BuiltIn("asgi_llm_gate.builtin.limiter", "ParallelRequestLimiter", ("lease_seconds",)),
}


def __getattr__(name: str) -> Any:
    for built_in in BUILT_IN.values():
        if built_in.kind == name:
            return built_in.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
