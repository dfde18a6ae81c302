"""The cache that hooks are given, with the methods of LiteLLM's `DualCache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache.dual import DualCache
from asgi_llm_gate.cache.errors import StoreError
from asgi_llm_gate.cache.memory import InMemoryCache

if TYPE_CHECKING:
    from asgi_llm_gate.cache.redis import RedisCache

__all__ = ["DualCache", "InMemoryCache", "RedisCache", "StoreError"]


def __getattr__(name: str) -> Any:
    """Import what only a shared cache needs when it is asked for."""
    if name != "RedisCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asgi_llm_gate.cache.redis import RedisCache

    return RedisCache
