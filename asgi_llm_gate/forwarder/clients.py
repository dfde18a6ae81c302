"""Which client library carries the requests."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from asgi_llm_gate.deadline import on_asyncio
from asgi_llm_gate.forwarder.httpx import AsyncClientLike, HttpxClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_llm_gate.forwarder.client import UpstreamClient


def opener(client: AsyncClientLike | None, *, connect_timeout: float) -> Callable[[], UpstreamClient]:
    """Choose what opens a client on an event loop: aiohttp, of which one serves several times as many requests.

    Where it is not installed or too old, where the loop is not asyncio's, or where a client is given, httpx.

    Args:
        client: What to send with, if that is settled.
        connect_timeout: Seconds to connect in.
    """
    with_httpx = partial(HttpxClient, client, connect_timeout=connect_timeout)
    if client is not None:
        return with_httpx
    try:
        from asgi_llm_gate.forwarder.aiohttp import AiohttpClient
    except ImportError:
        return with_httpx
    return lambda: AiohttpClient(connect_timeout=connect_timeout) if on_asyncio() else with_httpx()
