"""One WebSocket that carries LLM calls: let in, and watched in both directions until it closes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

import anyio
import orjson

from asgi_llm_gate.app_events import AppEvents
from asgi_llm_gate.auth import UserAPIKeyAuth, presented_key
from asgi_llm_gate.client_events import ClientEvents
from asgi_llm_gate.errors import GateError, Rejection, error_answer, error_fields, refused
from asgi_llm_gate.fields import require, require_user
from asgi_llm_gate.head import Head
from asgi_llm_gate.hooks import report_failure
from asgi_llm_gate.inbox import Inbox
from asgi_llm_gate.model_access import check_access
from asgi_llm_gate.rejections import as_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import Message, Receive, Scope, Send

    from asgi_llm_gate.authentication import Authenticator
    from asgi_llm_gate.call import CallData
    from asgi_llm_gate.plan import Plan
    from asgi_llm_gate.shapes import Dialogue, Json

# How a browser, which can set no headers, hands over a key (OpenAI's realtime clients).
_KEY_PROTOCOL = "openai-insecure-api-key."


class Socket:
    """One connection and all its state.

    The app runs in the caller's task. A child task reads from the server, so that an app that gives up waiting for a
    message loses none while hooks look at it.
    """

    def __init__(self, plan: Plan, dialogue: Dialogue, scope: Scope, receive: Receive, send: Send) -> None:
        self._plan = plan
        self._dialogue = dialogue
        self._scope = scope
        self._receive = receive
        self._send = send
        self._inbox = Inbox()
        self._open = False
        self._gone = False
        self._editing = anyio.Lock(fast_acquire=True)
        self._sending = anyio.Lock(fast_acquire=True)
        self._app_events: AppEvents | None = None

    async def run(self) -> None:
        """See the connection through to its end."""
        scope = as_http(self._scope)
        head = Head.of(scope)
        try:
            caller = await self._admit(scope, head)
        except Exception as exc:
            told = as_error(await self._failed(exc, {}, UserAPIKeyAuth()))
            await deny(self._scope, self._receive, self._send, told)
            return
        client = ClientEvents(self._plan, self._dialogue, scope, head, caller, partial(self._refused, caller))
        if self._plan.text:
            self._app_events = AppEvents(
                self._dialogue,
                self._plan.text,
                arguments=partial(_arguments, client),
                failed=lambda exc: self._failed(exc, client.call.data, client.caller),
                cancel=lambda event: self._inbox.tell(orjson.dumps(event).decode()),
                max_bytes=self._plan.settings.max_event_bytes,
            )
        failure = await self._beside_app(client, {**self._scope, "headers": head.headers, **self._query(self._scope)})
        if failure is not None:
            if not self._gone:
                await self._failed(failure, client.call.data, client.caller)
            raise failure

    async def _admit(self, scope: Scope, head: Head) -> UserAPIKeyAuth:
        """Let the connection in by its head."""
        settings = self._plan.settings
        caller = await identified(self._plan.authenticator, scope, head)
        if not self._dialogue.USER_IN_EVENTS:
            raw: bytes = scope.get("query_string", b"")
            query = _fields(raw)
            if self._plan.authenticator.limits_models:
                check_access(caller, _models(raw), query)
            if settings.enforce_user_param:
                user = require_user(query, settings.user_params)
                caller = caller if caller.end_user_id else caller.model_copy(update={"end_user_id": user})
            require(query, settings.enforced_params)
        return caller

    def _query(self, scope: Scope) -> dict[str, bytes]:
        """Return the query that the app gets: without who the user is, which no realtime server asks there."""
        settings = self._plan.settings
        query: bytes = scope.get("query_string", b"")
        if self._dialogue.USER_IN_EVENTS or not settings.enforce_user_param or settings.forward_user == "always":
            return {}
        pairs = query.split(b"&")
        kept = [pair for pair in pairs if _decoded(pair.partition(b"=")[0]) not in settings.user_params]
        return {"query_string": b"&".join(kept)}

    async def _beside_app(self, client: ClientEvents, scope: Scope) -> Exception | None:
        """Run the app while messages are read for it; return what it raised."""
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, client)
            try:
                await self._plan.app(scope, self._inbox, self._from_app)
                await self._let_go()
            except Exception as exc:
                failure = exc
            group.cancel_scope.cancel()
        return failure

    async def _read(self, client: ClientEvents) -> None:
        """Hand the client's messages over until it is gone."""
        while not self._gone:
            message: Message | None
            try:
                message = await self._receive()
            except Exception as exc:
                self._inbox.fail(exc)
                return
            if message["type"] == "websocket.receive":
                message = await client.checked(message)
            elif message["type"] == "websocket.disconnect":
                self._gone = True
            if message is not None:
                await self._inbox.put(message)

    async def _from_app(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._open = True
        elif kind == "websocket.close":
            await self._let_go()
            self._open = False
        if kind != "websocket.send" or self._app_events is None:
            await self._out(message)
            return
        async with self._editing:
            try:
                for edited in await self._app_events.edited(message):
                    await self._out(edited)
            except GateError as error:
                await self._tell(await self._failed(error, {}, UserAPIKeyAuth()), {})

    async def _let_go(self) -> None:
        """Send what text hooks still hold back."""
        if self._app_events is None or not self._open or self._gone:
            return
        async with self._editing:
            for message in await self._app_events.rest():
                await self._out(message)

    async def _out(self, message: Message) -> None:
        async with self._sending:
            await self._send(message)

    async def _refused(self, caller: UserAPIKeyAuth, exc: Exception, event: Json, call: CallData) -> None:
        """Account for an event of the client that does not go on, and say why."""
        await self._tell(await self._failed(exc, call.data, caller), event)

    async def _tell(self, exc: Exception, event: Json) -> None:
        """Send the event that reports an error, while the socket is open."""
        error = refused(exc.message) if isinstance(exc, Rejection) else as_error(exc)
        told = self._dialogue.error_event(error_fields(error), event, error.status_code)
        if self._open:
            with suppress(OSError):  # the client has gone, which `receive` says as well
                await self._out({"type": "websocket.send", "text": orjson.dumps(told).decode()})

    async def _failed(self, exc: Exception, data: Json, caller: UserAPIKeyAuth) -> Exception:
        """Tell the failure hooks; return what to tell the client."""
        with anyio.CancelScope(shield=True):  # what a hook holds for the call it gives back here
            told = await report_failure(self._plan.failure, exc, data, caller)
        return told or exc


def as_http(scope: Scope) -> Scope:
    """Return a WebSocket's scope as middleware and `custom_auth` functions know requests."""
    return {**scope, "type": "http", "method": "GET"}


async def identified(authenticator: Authenticator, scope: Scope, head: Head) -> UserAPIKeyAuth:
    """Return who opens a WebSocket.

    Args:
        authenticator: Asked who calls.
        scope: The connection, as of an HTTP request.
        head: Its headers.

    Raises:
        Exception: It is nobody who may.
    """
    head.check_single()
    key = presented_key(head.named) or _key_of_protocol(scope.get("subprotocols") or ())
    return await authenticator.caller(scope, key)


async def deny(scope: Scope, receive: Receive, send: Send, error: GateError) -> None:
    """Refuse a WebSocket before it is accepted, in the envelope where the server can carry it (ASGI: HTTP 403 else)."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        reason = error.message.encode()[:_MAX_REASON].decode(errors="ignore")
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return

    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await error_answer(error).send(send_denial)


# The most bytes that a close frame has for a reason (RFC 6455 §5.5).
_MAX_REASON = 123


def _key_of_protocol(subprotocols: Iterable[str]) -> str | None:
    keys = (name.removeprefix(_KEY_PROTOCOL) for name in subprotocols if name.startswith(_KEY_PROTOCOL))
    return next(keys, None) or None


def _arguments(client: ClientEvents) -> Mapping[str, Any]:
    data = client.call.data
    return {"user_api_key_dict": client.caller, "data": data, "request_data": data}


def _decoded(name: bytes) -> str:
    return unquote_plus(name.decode("latin-1"))


def _models(query: bytes) -> list[str]:
    """Return every model that a query names; Azure's clients call it the deployment."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return [value for name, value in pairs if name in {"model", "deployment"}]


def _fields(query: bytes) -> Json:
    """Return a query's fields, those with dots in their names nested."""
    fields: Json = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        *path, last = name.split(".")
        holder = fields
        for part in path:
            inner = holder.setdefault(part, {})
            holder = inner if isinstance(inner, dict) else {}
        holder[last] = value
    return fields
