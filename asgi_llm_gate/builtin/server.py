"""A server with OpenAI's API that a hook asks."""

from __future__ import annotations

from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx
import orjson
from anyio.lowlevel import RunVar

from asgi_llm_gate.builtin.options import base_url, key

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a guard has to say is short; in bytes, decoded.
MAX_ANSWER = 1_000_000

# Idle connections are given up before uvicorn, which most local servers run in, closes them.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4)


class ServerError(Exception):
    """The server gave no answer that can be used; the message has nothing secret."""


class Server:
    """A server with OpenAI's API.

    It has no time limit of its own: who asks has one, and being cancelled closes the connection.

    Args:
        api_base: Its base URL, such as ``http://127.0.0.1:8000/v1``.
        api_key: Sent as the bearer token, if there is one.
        client: What to send with, in place of a client of its own; it stays the caller's to close.

    Raises:
        ValueError: One of them is wrong; the message begins with its name.
    """

    def __init__(self, api_base: str, api_key: str | None, client: httpx.AsyncClient | None) -> None:
        self._base = base_url("api_base", api_base)
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if token := key("api_key", api_key):
            self._headers["authorization"] = f"Bearer {token}"
        if client is not None and not hasattr(client, "stream"):
            raise ValueError(f"client: expected an httpx.AsyncClient, got {type(client).__name__}")
        self._given = client
        # One for each event loop: a connection can't be used from another.
        self._own: RunVar[httpx.AsyncClient | None] = RunVar("own", None)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a body, and return what the answer holds.

        Args:
            path: Below the base URL, with a slash in front.
            body: What can be written as JSON.

        Raises:
            ServerError: There is no answer, or it is an error or no JSON.
        """
        url = f"{self._base}{path}"
        with _failures(url):
            async with self._client().stream(
                "POST", url, content=orjson.dumps(body), headers=self._headers, timeout=None, follow_redirects=False
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise ServerError(f"{url} answered with status {response.status_code}")
                content = await _read(response, url)
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ServerError(f"{url} answered with what is no JSON") from None

    async def aclose(self) -> None:
        """Close the connections of this event loop. Calls may still follow."""
        client = self._own.get()
        self._own.set(None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        client = self._given or self._own.get()
        if client is None:
            jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            client = httpx.AsyncClient(cookies=jar, limits=_LIMITS)
            self._own.set(client)
        return client


async def _read(response: httpx.Response, url: str) -> bytes:
    """Read to the end, as httpx's iterators must be, but keep no more than a limit."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        if len(content) <= MAX_ANSWER:
            content += chunk
    if len(content) > MAX_ANSWER:
        raise ServerError(f"{url} answered with more than {MAX_ANSWER} bytes")
    return bytes(content)


@contextmanager
def _failures(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as exc:
        raise ServerError(f"{url} gave no answer: {type(exc).__name__}") from exc
