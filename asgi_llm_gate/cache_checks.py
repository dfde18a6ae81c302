"""What the settings of a shared cache may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.values import WrongValueError, at, shown, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_llm_gate.cache import RedisCache
    from asgi_llm_gate.cache.address import Address


def cache(value: Any) -> DualCache | None:
    """Check a cache.

    Raises:
        WrongValueError: It is none.
    """
    if value is not None and not isinstance(value, DualCache):
        raise WrongValueError(f"expected a DualCache, got {type(value).__name__}")
    return value


def redis_url(value: Any) -> str | None:
    """Check the URL of a Redis.

    Raises:
        WrongValueError: It is none, or there is no redis-py.
    """
    url = None if value is None else text(value)
    if url is not None:
        from asgi_llm_gate.cache.address import from_url

        _address(lambda: from_url(url))
    return url


def redis_cache(value: Any, environ: Mapping[str, str]) -> RedisCache | None:
    """Make the tier that LiteLLM's `cache_params` describe, those it leaves out as in LiteLLM's environment variables.

    Raises:
        WrongValueError: They are wrong, or describe something that is not served.
    """
    if not isinstance(value, Mapping):
        raise WrongValueError(f"expected settings by name, got {type(value).__name__}")
    kind = value.get("type", "redis")
    if kind not in ("local", "redis"):
        raise WrongValueError(f"only local and redis are served by this version, got {shown(kind)}", ".type")
    if kind == "local":
        return None
    from asgi_llm_gate.cache.address import from_params
    from asgi_llm_gate.cache.redis import NAMESPACE, RedisCache

    namespace = at(".namespace", text, value.get("namespace", NAMESPACE))
    address = _address(lambda: from_params(value, environ))
    return RedisCache(address, namespace=namespace)


def _address(read: Callable[[], Address]) -> Address:
    try:
        return read()
    except (ImportError, ValueError) as exc:
        raise WrongValueError(exc) from None
