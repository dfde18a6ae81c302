"""The second half of a call: the app at work, what runs beside it, and its answer's way to the client."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from asgi_llm_gate.body import Replay
from asgi_llm_gate.errors import GateError, Rejection, UpstreamError, internal_error, stream_error
from asgi_llm_gate.event_reply import EventReply
from asgi_llm_gate.hooks import replacement
from asgi_llm_gate.keepalive import KeepAlive
from asgi_llm_gate.litellm_objects import record_left
from asgi_llm_gate.moderation import Hold, Moderation
from asgi_llm_gate.nest import Nest
from asgi_llm_gate.record import as_record
from asgi_llm_gate.rejections import answer_in_stream, answer_to, as_error
from asgi_llm_gate.reply import (
    PAST_SEND,
    Collected,
    Collector,
    Reply,
    has_whole_body,
    is_encoded,
    is_event_stream,
    is_json,
    is_text,
    unreadable,
    without_bytes_headers,
)
from asgi_llm_gate.running import Running, WatchedReceive
from asgi_llm_gate.stream import TextEditor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message, Receive, Scope, Send

    from asgi_llm_gate.body import Body
    from asgi_llm_gate.children import Work
    from asgi_llm_gate.exchange import Exchange
    from asgi_llm_gate.reply import Handler

logger = logging.getLogger("asgi_llm_gate")


class Delivery:
    """One run of the app for an exchange, and what hooks make of its answer.

    The app's messages pass through a `Reply`, which gives a whole response to the success hooks and a stream to the
    text and iterator hooks, then through a `Hold` while moderation has no verdict, then through the outlet.
    """

    _hold: Hold | None = None
    _moderation: Moderation | None = None
    _stream: EventReply | None = None
    _nest: Nest | None = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._plan = exchange.plan
        self._settings = exchange.plan.settings
        # Whole answers are collected and decoded.
        self._reads = bool(exchange.plan.success) or (exchange.carried is not None and exchange.carried.to_remember)

    async def run(self, body: Body) -> None:
        """Have the app answer."""
        plan, scope = self._plan, self._scope(body)
        if not (plan.watches or plan.headers or self._reads):
            await plan.app(scope, Replay(body.messages, self._exchange.receive), self._exchange.send)
            return
        self._out: Send = self._exchange.outlet
        if not plan.watches:
            # Nothing could end the call early, or asks how it ends: the server's own `receive` will do.
            send = Reply(self._out, self._choose) if self._reads else self._out
            await plan.app(scope, Replay(body.messages, self._exchange.receive), send)
            return
        self._outlet = self._exchange.outlet
        self._exchange.head.forget()
        receive = WatchedReceive(body.messages, self._exchange.receive)
        self._running = Running(receive, self._settings.cancel_grace, self._client_gone)
        self._outlet.completed = self._completed
        self._outlet.delivered = self._running.delivered
        if plan.moderation:
            self._hold_back()
        self._reply = Reply(self._out, self._choose)
        try:
            await self._running.run(partial(self._app, scope, receive), self._beside())
        except anyio.get_cancelled_exc_class():
            await self._exchange.abandoned(reached=True)
            raise
        except Exception as exc:
            await self._app_failed(exc)
            raise
        else:
            if not self._exchange.account.settled:
                await self._app_failed(RuntimeError("the app returned before its response was complete"))
        finally:
            await self._log()
            vars(self).clear()  # what it has refers back here: nothing is to wait for the garbage collector

    async def _app(self, scope: Scope, receive: Receive) -> None:
        try:
            await self._plan.app(scope, receive, self._reply)
        finally:
            if self._nest is not None:
                self._nest.cancel()
            await self._exchange.over()

    def _scope(self, body: Body) -> Scope:
        plan = self._plan
        looks = self._reads or plan.text or plan.iterator or plan.failure or plan.log
        reads = bool(looks or self._settings.moderation_mode == "cut")
        scope = {**self._exchange.scope, "headers": self._exchange.head.for_app(body, identity=reads)}
        if scope.get("extensions") and (self._reads or plan.watches):
            scope["extensions"] = {k: v for k, v in scope["extensions"].items() if k not in PAST_SEND}
        return scope

    def _beside(self) -> Iterator[Work]:
        """Yield what runs beside the app from the start; moderation, which may stop its hooks, starts them itself."""
        if self._plan.log.pre_api_call:
            yield self._exchange.log_pre_api_call
        if self._moderation is not None:
            self._moderation.begin(self._running.start)

    def _hold_back(self) -> None:
        """Hold the answer back until the moderation hooks, which begin with the app, have come to a verdict."""
        exchange = self._exchange
        self._hold = Hold(self._outlet, self._settings.moderation_buffer)
        self._out = self._hold
        self._moderation = Moderation(
            self._plan.moderation,
            {"data": exchange.call.data, "user_api_key_dict": exchange.caller, "call_type": exchange.call_type},
            exchange.limit,
            passed=self._hold.open,
            refused=self._condemned,
        )

    def _choose(self, start: Message) -> Handler | None:
        """Decide by a response start who looks at the response."""
        plan = self._plan
        if start["status"] >= 400:
            wanted = bool(plan.failure or plan.log)
        elif is_event_stream(start):
            whole = self._exchange.head.method != "HEAD" and start["status"] not in {204, 205, 304}
            return self._streamed(start) if whole else None
        else:
            wanted = self._reads and has_whole_body(start) and (is_json(start) or self._is_text(start))
        if not wanted or (self._exchange.head.method == "HEAD" and start["status"] < 400):
            return None
        return Collector(start, self._finish, self._overflow, self._settings.max_response_bytes)

    def _streamed(self, start: Message) -> Handler | None:
        reply = self._event_reply(start)
        if self._settings.keep_alive and self._holds_back() and not is_encoded(start):
            start, interval = without_bytes_headers(start), self._settings.keep_alive
            self._running.meanwhile(KeepAlive(start, self._outlet, interval, self._holds_back).run)
        return reply

    def _holds_back(self) -> bool:
        return self._stream is not None or (self._hold is not None and self._hold.holds)

    def _event_reply(self, start: Message) -> Handler | None:
        plan, exchange = self._plan, self._exchange
        cut = plan.moderation and self._settings.moderation_mode == "cut"
        stream = exchange.endpoint.shape.open_stream() if plan.text or plan.iterator or cut else None
        if stream is None:
            return None
        if is_encoded(start):
            return Collector(start, self._unreadable, self._unreadable, 0)
        if cut and self._hold is not None:
            self._running.start(self._hold.open)
        arguments = {"user_api_key_dict": exchange.caller, "request_data": exchange.call.data}
        editor = TextEditor(plan.text, stream, {**arguments, "data": exchange.call.data}) if plan.text else None
        reply = EventReply(
            start,
            self._out,
            stream=stream,
            editor=editor,
            failed=self._stream_failed,
            errored=self._stream_errored,
            beside=self._running.start,
            max_event_bytes=self._settings.max_event_bytes,
        )
        self._stream = reply
        if plan.iterator:
            kind = exchange.endpoint.shape.Response
            nest = Nest(
                plan.iterator,
                arguments,
                kind,
                exchange.endpoint.call_type,
                emit=reply.emit,
                failed=reply.fail,
                ended=self._generators_ended,
            )
            self._nest = nest
            reply.nest_in(nest, kind)
            self._running.start(nest.run)
        return reply

    async def _finish(self, collected: Collected) -> None:
        """Have the hooks look at a whole response, and send what they make of it."""
        if not await self._may_answer():
            return
        if collected.status >= 400:
            await self._upstream_failed(collected)
            return
        try:
            collected = await self._post_call(collected)
        except Exception as exc:
            if not self._exchange.account.settled:
                await self._exchange.refuse(exc)
        else:
            await collected.send(self._out)

    async def _post_call(self, collected: Collected) -> Collected:
        """Return the response as the success hooks leave it: its very bytes if they changed nothing."""
        exchange, kind = self._exchange, self._exchange.endpoint.shape.Response
        text = self._is_text(collected.start)
        limit = self._settings.max_response_bytes
        response: Any = {"text": collected.text(limit)} if text else collected.decoded(limit)
        before = orjson.dumps(response)
        for hook in self._plan.success:
            # What the hook before put inside may be plain dicts.
            given = hook.objects(exchange.endpoint.call_type).whole(as_record(response, kind))
            available = {"data": exchange.call.data, "user_api_key_dict": exchange.caller, "response": given}
            result = await hook.call(available, partial(replacement, kind), exchange.limit)
            response = record_left(given if result is None else result, kind)
        if self._plan.headers:
            exchange.response = as_record(response, kind)
        try:
            after = orjson.dumps(response)
        except TypeError as exc:
            names = ", ".join(hook.name for hook in self._plan.success)
            logger.error("%s left a response that is not JSON: %s", names, exc)
            raise internal_error() from exc
        if exchange.carried is not None:
            await exchange.carried.remember(response)
        if after == before:
            return collected
        if not text:
            return collected.with_body(after)
        if not isinstance(response.get("text"), str):
            logger.error("the success hooks left an answer that is text without its `text`")
            raise internal_error()
        return collected.with_body(response["text"].encode())

    def _is_text(self, start: Message) -> bool:
        """Tell whether an answer is bare text, because the call asked for it or the app says so."""
        exchange = self._exchange
        return exchange.endpoint.answers_text and is_text(start, exchange.call.data.get("response_format"))

    async def _upstream_failed(self, collected: Collected) -> None:
        """Pass the app's own error on unchanged, unless a failure hook puts another in its place."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in collected.headers}
        error = UpstreamError(collected.status, collected.body, headers)
        told = await self._fail(error)
        if told is error:
            await collected.send(self._out)
        else:
            await self._answer(told, self._out)

    async def _overflow(self) -> None:
        if await self._may_answer():
            error = GateError(502, "The app's response is too large to look at", code="response_too_large")
            await self._refuse_response(error)

    async def _unreadable(self, _collected: Collected | None = None) -> None:
        if await self._may_answer():
            await self._refuse_response(unreadable("a stream with a content-encoding"))

    async def _refuse_response(self, error: GateError) -> None:
        """Answer in place of an app that may have more to say, which nobody will hear."""
        if self._plan.watches:
            self._running.end()
        await self._exchange.refuse(error)

    async def _may_answer(self) -> bool:
        """Wait for the moderation's verdict; False if the call has ended without the app."""
        if not self._plan.watches:
            return True
        good = self._moderation is None or await self._moderation.verdict()
        return good and not self._exchange.account.settled

    async def _app_failed(self, exc: Exception) -> None:
        """Account for what the app raised; the host answers, unless a failure hook does."""
        if not self._exchange.account.settled:
            told = await self._fail(exc)
            self._outlet.completed = self._outlet.delivered = None
            if self._stream is not None and self._outlet.started:
                await self._stream.broken(as_error(told))
            if told is not exc and not self._outlet.started:
                await self._answer(told, self._outlet)

    async def _condemned(self, exc: Exception) -> None:
        """Answer for a moderation hook's refusal, without waiting for the app to stop."""
        if self._outlet.complete or (self._exchange.account.settled and self._stream is None):
            return
        self._running.end()
        if self._stream is not None and self._outlet.started:
            await self._stream.fail(exc)
            return
        assert self._hold is not None  # noqa: S101  # there is one where there is moderation
        self._hold.close()
        told = exc if self._exchange.account.settled else await self._fail(exc)
        await self._answer(told, self._outlet)

    async def _stream_failed(self, exc: Exception) -> Exception | None:
        """Account for what ends a stream early; answer for it if nothing has gone out."""
        self._running.end()
        self._stop_moderation()
        told = exc if self._exchange.account.settled else await self._fail(exc)
        if self._outlet.started:
            return told if isinstance(told, Rejection) else as_error(told)
        await self._answer(told, self._outlet)
        return None

    async def _stream_errored(self, error: Any) -> None:
        """Account for an error that the app reports inside its stream; it passes on as it is."""
        if not self._exchange.account.settled:
            await self._fail(stream_error(error))

    async def _generators_ended(self) -> None:
        if self._stream is not None and await self._stream.stop():
            self._running.end()

    async def _client_gone(self) -> None:
        self._stop_moderation()
        await self._exchange.abandoned(reached=True)

    def _stop_moderation(self) -> None:
        if self._moderation is not None:
            self._moderation.cancel()
        if self._hold is not None and not self._outlet.started:
            self._hold.close()

    async def _completed(self) -> None:
        """Take note that the last message is about to go out."""
        if not self._exchange.account.settled:
            self._exchange.account.succeeded()
        self._running.answered()
        if self._plan.log:
            self._running.start(self._log)
        if self._reply.complete:
            await self._exchange.over()

    async def _log(self) -> None:
        await self._exchange.log_end(reached=True)

    async def _fail(self, exc: Exception) -> Exception:
        return await self._exchange.account.failed(exc, self._exchange.call, self._exchange.caller)

    async def _answer(self, exc: Exception, send: Send) -> None:
        exchange = self._exchange
        answer = answer_in_stream if self._outlet.opened else answer_to
        await answer(exc, exchange.endpoint, exchange.call.asked, exchange.id).send(send)
