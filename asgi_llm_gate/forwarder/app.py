"""The forwarder: an upstream server as an ASGI app."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import RunVar

from asgi_llm_gate import endpoints
from asgi_llm_gate.answer import Answer
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.forwarder.body import ClientGone, RequestBody
from asgi_llm_gate.forwarder.clients import opener
from asgi_llm_gate.forwarder.errors import ErrorForm
from asgi_llm_gate.forwarder.headers import bearer, encode
from asgi_llm_gate.forwarder.plan import Call, ModelPlan, SinglePlan
from asgi_llm_gate.forwarder.relay import Relay
from asgi_llm_gate.forwarder.routes import Routes
from asgi_llm_gate.forwarder.upstream import Base, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from asgi_llm_gate.forwarder.client import UpstreamClient, UpstreamRequest
    from asgi_llm_gate.forwarder.httpx import AsyncClientLike


class Forwarder:
    """An ASGI app that answers by asking an upstream server with OpenAI's API.

    Bodies stream through both ways as they come. A client that goes away closes the upstream's connection.
    An upstream that can't be reached is a 502, one that stays silent a 504; a response that breaks off
    breaks off here too.

    Args:
        base_url: The upstream, as OpenAI's clients take it: ``https://api.openai.com/v1``.
        api_key: Sent as the bearer token in place of the client's credentials; without it, those go on.
        model_list: In place of ``base_url``, LiteLLM's entries: each call goes to an upstream that serves
            its ``model``. The client's credentials never go on.
        client: What to send with, an ``httpx.AsyncClient`` or one with its API, such as
            ``httpx2.AsyncClient``. It stays the caller's to close. If None, aiohttp where it is installed and the event
            loop is asyncio's, else httpx.
        timeout: Seconds an upstream may stay silent.
        connect_timeout: Seconds to connect in.
        max_body_bytes: The largest JSON body that is read to find its ``model``; of a form, all its fields that are no
            files.
        max_upload_bytes: Likewise, the largest form.
        headers: Set on every request to an upstream.

    Raises:
        ValueError: A setting is wrong; the message is one line that names it.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model_list: Sequence[Mapping[str, Any]] = (),
        client: AsyncClientLike | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        max_body_bytes: int = 10_000_000,
        max_upload_bytes: int = 512_000_000,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if (base_url is None) == (not model_list):
            raise ValueError("Give either a base_url or a model_list")
        own = dict(_setting("headers", encode, headers or {}))
        self._plan: SinglePlan | ModelPlan
        if base_url is not None:
            base = _setting("base_url", Base.parse, base_url)
            if api_key:
                own = dict([_setting("api_key", bearer, api_key)]) | own
            self._plan = SinglePlan(Upstream(base, tuple(own.items()), timeout, keep_credentials=not api_key))
        elif api_key:
            raise ValueError("api_key: with a model_list each entry has its own")
        else:
            routes = Routes(model_list, timeout=timeout, headers=own)
            self._plan = ModelPlan(routes, max_body_bytes, max_upload_bytes, created=int(time.time()))
        self._endpoints = endpoints.Routes()
        self._new_client = opener(client, connect_timeout=connect_timeout)
        # One for each event loop: a connection can't be used from another.
        self._client: RunVar[UpstreamClient | None] = RunVar("client")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope: forward ``http``, own ``lifespan``, refuse ``websocket``."""
        if scope["type"] == "http":
            await self._forward(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "WebSockets are not forwarded"})
        else:
            raise RuntimeError(f"The scope type {scope['type']!r} is not known")

    async def aclose(self) -> None:
        """Close the connections to the upstream, for where no lifespan is run. Calls may still follow."""
        client = self._client.get(None)
        self._client.set(None)
        if client is not None:
            await client.aclose()

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, errors = RequestBody(receive), ErrorForm(self._endpoints, scope["path"])
        try:
            planned: Answer | UpstreamRequest = await self._plan.request(Call.of(scope), body)
        except ClientGone:
            return
        except GateError as error:
            planned = errors.answer(error)
        if isinstance(planned, Answer):
            await planned.send(send)
        else:
            try:
                await Relay(self._opened(), planned, body, send, errors).run()
            finally:
                planned.close()

    def _opened(self) -> UpstreamClient:
        client = self._client.get(None)
        if client is None:
            client = self._new_client()
            self._client.set(client)
        return client

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._opened()
        except Exception as exc:  # a server would take one raised here for "no lifespan", and go on
            await send({"type": "lifespan.startup.failed", "message": f"{type(exc).__name__}: {exc}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _setting(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from None
