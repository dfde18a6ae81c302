"""The cache that hooks are given, with the methods of LiteLLM's `DualCache`."""

from __future__ import annotations

from asgi_llm_gate.cache.dual import DualCache
from asgi_llm_gate.cache.errors import StoreError
from asgi_llm_gate.cache.memory import InMemoryCache
from asgi_llm_gate.cache.redis import RedisCache

__all__ = ["DualCache", "InMemoryCache", "RedisCache", "StoreError"]
