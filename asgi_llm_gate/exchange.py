"""One call's life: admitted, changed or refused by its hooks, run, and answered."""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.answer import EVENT_STREAM, Answer
from asgi_llm_gate.auth import UserAPIKeyAuth, authenticate, presented_key
from asgi_llm_gate.body import Head, Replay, decode, read_body
from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.call import CallData
from asgi_llm_gate.deadline import DeadlineError, within
from asgi_llm_gate.errors import GateError, Rejection, UpstreamError, error_answer, intended, internal_error
from asgi_llm_gate.fields import require, require_user
from asgi_llm_gate.hooks import STAGES, Hook, chain, new_data, replacement, report_failure
from asgi_llm_gate.moderation import Hold, Moderation, TellableReplay
from asgi_llm_gate.record import as_record
from asgi_llm_gate.reply import PAST_SEND, Collected, Reply, has_whole_body, is_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from asgi_llm_gate.config import Settings
    from asgi_llm_gate.endpoints import Endpoint

logger = logging.getLogger("asgi_llm_gate")


@dataclass(frozen=True, slots=True)
class Plan:
    """What all calls of one gate have in common, resolved once."""

    app: ASGIApp
    settings: Settings
    cache: DualCache
    pre_call: tuple[Hook, ...]
    moderation: tuple[Hook, ...]
    success: tuple[Hook, ...]
    failure: tuple[Hook, ...]

    @classmethod
    def of(cls, app: ASGIApp, settings: Settings) -> Self:
        """Resolve the hooks of each stage."""
        stages = (
            chain(settings.callbacks, method, timeout=settings.hook_timeout, on_error=settings.on_hook_error)
            for method in STAGES
        )
        return cls(app, settings, settings.cache or DualCache(), *stages)

    @property
    def has_hooks(self) -> bool:
        """Any hook runs, so calls carry what hooks look for."""
        return bool(self.pre_call or self.moderation or self.success or self.failure)


def not_inspected(endpoint: Endpoint) -> GateError:
    """Make the 403 of an endpoint that no hook would look into; `policies` can let its calls pass."""
    message = f"This gate does not let {endpoint.call_type} calls through, because no hook would see what is in them"
    return GateError(403, message, code="endpoint_not_inspected")


class Exchange:
    """One call and all its state."""

    def __init__(self, plan: Plan, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self.plan = plan
        self.endpoint = endpoint
        self.scope = scope
        self.receive = receive
        self.send = send
        self.id = secrets.token_hex(16)
        self.head = Head.of(scope)
        self.caller = UserAPIKeyAuth()
        self.call = CallData({})
        litellm = plan.settings.call_type_names == "litellm"
        self.call_type = endpoint.litellm_call_type if litellm else endpoint.call_type
        self._moderation: Moderation | None = None
        self._out = send

    async def run(self) -> None:
        """See the call through to its answer."""
        try:
            raw = await self._admit()
            if raw is None:
                return
            body = await self._prepare(raw) if raw or self.head.method == "POST" else None
        except Exception as exc:
            if not isinstance(exc, Rejection) and intended(exc) is None:
                raise
            await self._refuse(exc)
            return
        if body is None:
            await self.plan.app({**self.scope, "headers": self.head.headers}, Replay(b"", self.receive), self.send)
        else:
            await self._run_app(body)

    async def _admit(self) -> bytes | None:
        """Let the call in by its head and read its body; None if the client went away.

        A method other than POST makes a call only with a body, and may not say beforehand that it has one.
        """
        settings = self.plan.settings
        announced = self.head.method == "POST" or self.head.declares_body
        if not self.head.is_preflight:
            await self._identify()
        if announced:
            self._check_head()
        try:
            raw = await within(settings.body_timeout, read_body(self.receive, self.head, settings.max_body_bytes))
        except DeadlineError:
            message = f"The request body was not complete within {settings.body_timeout:g} seconds"
            raise GateError(408, message, code="request_timeout") from None
        if raw and not announced:
            self._check_head()
            if self.head.is_preflight:
                await self._identify()
        return raw

    async def _identify(self) -> None:
        settings = self.plan.settings
        self.head.check_single()
        key = presented_key(self.head.named)
        self.caller = await authenticate(self.scope, key, settings.master_key, settings.custom_auth)

    def _check_head(self) -> None:
        if not self.endpoint.inspected:
            raise not_inspected(self.endpoint)
        self.head.check(self.plan.settings.max_body_bytes)

    async def _prepare(self, raw: bytes) -> bytes:
        """Decode the body, check it, and have the pre-call hooks change or refuse it; return what the app gets."""
        settings = self.plan.settings
        self.call = CallData(decode(raw, settings.max_json_values), raw)
        data = self.call.data
        user = data.get("user")
        if settings.enforce_user_param:
            user = require_user(data, settings.user_params)
        require(data, settings.enforced_params)
        if self.plan.has_hooks:
            if self.caller.end_user_id is None and isinstance(user, str):
                self.caller.end_user_id = user
            self.call.equip(self.scope, self.head, self.id, self.caller)
            await self._pre_call()
        unforwarded = settings.enforce_user_param and not self.endpoint.has_user and settings.forward_user != "always"
        try:
            return self.call.for_app(settings.user_params if unforwarded else ())
        except TypeError as exc:
            logger.error("the pre-call hooks left data that is not JSON: %s", exc)
            raise internal_error() from exc

    async def _pre_call(self) -> None:
        for hook in self.plan.pre_call:
            result = await hook(
                new_data,
                user_api_key_dict=self.caller,
                cache=self.plan.cache,
                data=self.call.data,
                call_type=self.call_type,
            )
            if result is not None:
                self.call.replace(result)

    async def _run_app(self, body: bytes) -> None:
        """Run the app on the call, and the moderation hooks beside it."""
        plan = self.plan
        scope = {**self.scope, "headers": self.head.for_app(body, identity=bool(plan.success))}
        if scope.get("extensions") and (plan.success or plan.failure or plan.moderation):
            scope["extensions"] = {k: v for k, v in scope["extensions"].items() if k not in PAST_SEND}
        if plan.moderation:
            replay = TellableReplay(body, self.receive)
            hold = Hold(self.send, plan.settings.moderation_buffer)
            self._out = hold
            self._moderation = Moderation(
                plan.moderation,
                {"data": self.call.data, "user_api_key_dict": self.caller, "call_type": self.call_type},
                hold=hold,
                replay=replay,
                refuse=self._refuse,
                grace=plan.settings.cancel_grace,
            )
            await self._moderation.run(partial(self._call_app, scope, replay))
        else:
            await self._call_app(scope, Replay(body, self.receive))

    async def _call_app(self, scope: Scope, receive: Receive) -> None:
        plan = self.plan
        if not plan.success and not plan.failure:
            await plan.app(scope, receive, self._out)
            return
        reply = Reply(
            self._out,
            wanted=self._wants,
            finish=self._finish,
            overflow=self._overflow,
            max_bytes=plan.settings.max_response_bytes,
        )
        try:
            await plan.app(scope, receive, reply)
        except Exception as exc:
            replaced = await report_failure(plan.failure, exc, self.call.data, self.caller)
            if replaced is not None and not reply.committed:
                await self._answer(replaced).send(self._out)
            raise

    def _wants(self, start: Message) -> bool:
        if start["status"] >= 400:
            return bool(self.plan.failure)
        return bool(self.plan.success) and self.head.method != "HEAD" and has_whole_body(start) and is_json(start)

    async def _finish(self, collected: Collected) -> None:
        """Have the hooks look at a whole response, and send what they make of it."""
        if self._moderation is not None and not await self._moderation.verdict():
            return
        if collected.status >= 400:
            await self._upstream_failed(collected)
            return
        try:
            collected = await self._post_call(collected)
        except Exception as exc:
            await self._refuse(exc)
        else:
            await collected.send(self._out)

    async def _upstream_failed(self, collected: Collected) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in collected.headers}
        error = UpstreamError(collected.status, collected.body, headers)
        replaced = await report_failure(self.plan.failure, error, self.call.data, self.caller)
        if replaced is None:
            await collected.send(self._out)
        else:
            await self._answer(replaced).send(self._out)

    async def _post_call(self, collected: Collected) -> Collected:
        """Return the response as the success hooks leave it: its very bytes if they changed nothing."""
        response = as_record(collected.decoded(self.plan.settings.max_response_bytes), self.endpoint.shape.Response)
        before = orjson.dumps(response)
        for hook in self.plan.success:
            # What an earlier hook put inside may be plain dicts.
            response = as_record(response, self.endpoint.shape.Response)
            result = await hook(replacement, data=self.call.data, user_api_key_dict=self.caller, response=response)
            if result is not None:
                response = as_record(result, self.endpoint.shape.Response)
        try:
            after = orjson.dumps(response)
        except TypeError as exc:
            logger.error("the success hooks left a response that is not JSON: %s", exc)
            raise internal_error() from exc
        return collected if after == before else collected.with_body(after)

    async def _overflow(self) -> None:
        error = GateError(502, "The app's response is too large to look at", code="response_too_large")
        await self._refuse(error)

    async def _refuse(self, exc: Exception) -> None:
        """Tell the failure hooks, and answer the client in place of the app."""
        replaced = await report_failure(self.plan.failure, exc, self.call.data, self.caller)
        await self._answer(replaced or exc).send(self.send)

    def _answer(self, exc: Exception) -> Answer:
        if isinstance(exc, Rejection):
            return self._rejection(exc.message)
        error = intended(exc)
        if error is None:
            logger.error("the call failed", exc_info=exc)
            error = internal_error()
        return error_answer(error, f"req_{self.id}")

    def _rejection(self, message: str) -> Answer:
        """Say a hook's message as the endpoint's own kind of answer, in the form the client asked for."""
        asked = self.call.asked
        shape, headers = self.endpoint.shape, ((b"x-request-id", f"req_{self.id}".encode()),)
        now = int(time.time())
        if asked.get("stream") is True:
            chunks = list(shape.rejection_chunks(asked, message, id=self.id, created=now))
            if chunks:
                return Answer(200, sse.encode_stream(chunks), EVENT_STREAM, headers)
        body = shape.rejection(asked, message, id=self.id, created=now)
        if body is None:
            error = GateError(400, message, code="content_policy_violation")
            return error_answer(error, f"req_{self.id}")
        return Answer(200, orjson.dumps(body), headers=headers)
