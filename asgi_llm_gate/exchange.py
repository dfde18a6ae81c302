"""One call's life: admitted, changed or refused by its hooks, run beside its moderation, and answered."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate.account import Account
from asgi_llm_gate.auth import UserAPIKeyAuth, authenticate, presented_key
from asgi_llm_gate.body import Head, Replay, decode, read_body
from asgi_llm_gate.call import CallData
from asgi_llm_gate.deadline import DeadlineError, within
from asgi_llm_gate.delivery import Delivery
from asgi_llm_gate.deployments import model_of, with_model
from asgi_llm_gate.errors import GateError, Rejection, intended, internal_error
from asgi_llm_gate.fields import find, require, require_user
from asgi_llm_gate.hooks import added_headers, new_data
from asgi_llm_gate.outlet import Outlet
from asgi_llm_gate.presence import DisconnectedError, while_connected
from asgi_llm_gate.rejections import answer_to

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.plan import Plan

logger = logging.getLogger("asgi_llm_gate")


def not_inspected(endpoint: Endpoint) -> GateError:
    """Make the 403 of an endpoint that no hook would look into; `policies` can let its calls pass."""
    message = f"This gate does not let {endpoint.call_type} calls through, because no hook would see what is in them"
    return GateError(403, message, code="endpoint_not_inspected")


class Exchange:
    """One call and all its state.

    Attributes:
        response: A whole response of the app, once the hooks have looked at it.
    """

    def __init__(self, plan: Plan, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self.plan = plan
        self.endpoint = endpoint
        self.scope = scope
        self.receive = receive
        self.id = secrets.token_hex(16)
        self.head = Head.of(scope)
        self.caller = UserAPIKeyAuth()
        self.call = CallData({})
        self.response: Any = None
        litellm = plan.settings.call_type_names == "litellm"
        self.call_type = endpoint.litellm_call_type if litellm else endpoint.call_type
        self.account = Account(plan, endpoint, self.call_type, self.id)
        self.outlet = Outlet(
            send,
            headers=self._added_headers if plan.headers else None,
            copy_bytes=plan.settings.log_response_bytes if plan.log else 0,
        )

    async def run(self) -> None:
        """See the call through to its answer."""
        try:
            raw = await self._admit()
            if raw is None:
                return
            body = await self._prepare(raw) if raw or self.head.method == "POST" else None
        except anyio.get_cancelled_exc_class():
            await self.abandoned()
            raise
        except DisconnectedError:
            await self.abandoned()
            return
        except Exception as exc:
            if not isinstance(exc, Rejection) and intended(exc) is None:
                raise
            try:
                await self.refuse(exc)
            finally:
                await self.log_end()
            return
        if body is None:
            scope = {**self.scope, "headers": self.head.headers}
            await self.plan.app(scope, Replay(b"", self.receive), self.outlet.send)
        else:
            await Delivery(self).run(body)

    async def refuse(self, exc: Exception) -> None:
        """Tell the failure hooks, and answer the client in place of the app."""
        told = await self.account.failed(exc, self.call, self.caller)
        await answer_to(told, self.endpoint, self.call.asked, self.id).send(self.outlet)

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
        self.caller = await authenticate(
            self.scope, key, settings.master_key, settings.custom_auth, timeout=settings.hook_timeout
        )

    def _check_head(self) -> None:
        if not self.endpoint.inspected:
            raise not_inspected(self.endpoint)
        self.head.check(self.plan.settings.max_body_bytes)

    async def _prepare(self, raw: bytes) -> bytes:
        """Decode the body, check it, and have the pre-call hooks change or refuse it; return what the app gets."""
        settings = self.plan.settings
        self.call = CallData(decode(raw, settings.max_json_values), raw, model_of(self.scope["path"]))
        data = self.call.data
        own = self.endpoint.user_params
        user = find(data, own[0] if own else "user")
        if settings.enforce_user_param:
            user = require_user(data, own or settings.user_params)
        require(data, settings.enforced_params)
        if self.plan.has_hooks:
            if self.caller.end_user_id is None and isinstance(user, str):
                self.caller.end_user_id = user
            self.call.equip(self.scope, self.head, self.id, self.caller)
            if self.plan.pre_call:
                await while_connected(self.receive, self._pre_call())
        unforwarded = settings.enforce_user_param and not self.endpoint.has_user and settings.forward_user != "always"
        try:
            if self.call.changes_path:
                self.scope = with_model(self.scope, self.call.data.get("model"))
            return self.call.for_app((own or settings.user_params) if unforwarded else ())
        except TypeError as exc:
            names = ", ".join(hook.name for hook in self.plan.pre_call)
            logger.error("%s left data that can't be sent: %s", names, exc)
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

    async def abandoned(self, *, reached: bool = False) -> None:
        """Account for a call that is cancelled from outside, or whose client is gone."""
        if self.account.settled:
            return
        gone = GateError(499, "The client closed the connection", code="client_disconnected")
        with anyio.CancelScope(shield=True):  # each hook has its own time limit
            await self.account.failed(gone, self.call, self.caller)
            await self.log_end(reached=reached)

    async def log_end(self, *, reached: bool = False) -> None:
        """Tell the log hooks how the call ended, also where it is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self.account.log_end(self.call, self.outlet, reached=reached)

    async def log_pre_api_call(self) -> None:
        """Tell the log hooks that the call goes to the model, however soon it ends."""
        with anyio.CancelScope(shield=True):
            await self.account.log_pre_api_call(self.call)

    async def _added_headers(self) -> dict[str, Any]:
        """Ask the headers hooks; one that fails loses only its own."""
        added: dict[str, Any] = {}
        for hook in self.plan.headers:
            try:
                result = await hook(
                    added_headers,
                    data=self.call.data,
                    user_api_key_dict=self.caller,
                    response=self.response,
                    request_headers=self.call.headers,
                )
                added.update(result or {})
            except Exception as exc:  # an answer is on its way: there is nothing to refuse
                logger.error("%s raised", hook.name, exc_info=exc)
        return added
