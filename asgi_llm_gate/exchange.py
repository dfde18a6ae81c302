"""One call's life: admitted, changed or refused by its hooks, run beside its moderation, and answered."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from asgi_llm_gate.account import Account
from asgi_llm_gate.auth import UserAPIKeyAuth, presented_key
from asgi_llm_gate.body import Replay, check_size, parse, read_body, read_form, whole_body
from asgi_llm_gate.call import CallData
from asgi_llm_gate.carried import CarriedCalls
from asgi_llm_gate.deadline import DeadlineError, limiter, on_asyncio
from asgi_llm_gate.delivery import Delivery
from asgi_llm_gate.deployments import model_of
from asgi_llm_gate.endpoints import DENY, not_inspected
from asgi_llm_gate.errors import GateError, Rejection, intended
from asgi_llm_gate.form_headers import FORM
from asgi_llm_gate.forms import FormParser
from asgi_llm_gate.head import Head
from asgi_llm_gate.hooks import added_headers
from asgi_llm_gate.lazy import lazy
from asgi_llm_gate.masking import log_crash
from asgi_llm_gate.outlet import Outlet
from asgi_llm_gate.preparation import Preparation
from asgi_llm_gate.presence import DisconnectedError, while_connected
from asgi_llm_gate.rejections import answer_to

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive, Scope, Send

    from asgi_llm_gate.body import Body
    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.plan import Plan

# A larger body is worked on in several turns of the loop, so that other calls go on between them; in bytes.
_LARGE = 64_000


class Exchange:
    """One call and all its state; what only some calls need is made when it is asked for.

    Attributes:
        response: A whole response of the app, once the hooks have looked at it.
        carried: The calls that it carries in a file, if its endpoint takes such.
    """

    response: Any = None
    carried: CarriedCalls | None = None
    _form: FormParser | None = None

    def __init__(self, plan: Plan, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self.plan = plan
        self.endpoint = endpoint
        self.scope = scope
        self.receive = receive
        self._start = time.time()
        self._stepping = on_asyncio()
        self.limit = limiter(stepping=self._stepping)
        self.head = Head.of(scope)
        self.send = send

    @lazy
    def outlet(self) -> Outlet:
        """Where the answer goes."""
        headers = self._added_headers if self.plan.headers else None
        copy_bytes = self.plan.settings.log_response_bytes if self.plan.log else 0
        outlet = Outlet(self.send, headers=headers, copy_bytes=copy_bytes)
        if self.plan.ended:
            outlet.completed = self.over
        return outlet

    @property
    def call_type(self) -> str:
        """The word that hooks are given for the type of the call."""
        return self.plan.name_of(self.endpoint)

    @lazy
    def id(self) -> str:
        """The call's id, made when someone asks for it."""
        return secrets.token_hex(16)

    @lazy
    def account(self) -> Account:
        """How the call ends."""
        return Account(self.plan, self.endpoint, self.call_type, self.id, self._start)

    @lazy
    def caller(self) -> UserAPIKeyAuth:
        """Who calls; nobody, as long as that is not known."""
        return UserAPIKeyAuth()

    @lazy
    def call(self) -> CallData:
        """The call's data; none, as long as the body is not decoded."""
        return CallData({})

    async def run(self) -> None:
        """See the call through to its answer."""
        try:
            await self._run()
        finally:
            if self.plan.ended:
                await self.over()
            if self._form is not None:
                self._form.discard()

    async def _run(self) -> None:
        try:
            raw = await self._admit()
            if raw is None:
                return
            body = await self._prepare(raw) if raw or self._form or self.head.method == "POST" else None
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
            await self.plan.app(scope, Replay(whole_body(b""), self.receive), self.outlet.send)
        else:
            await Delivery(self).run(body)

    async def refuse(self, exc: Exception) -> None:
        """Tell the failure hooks, and answer the client in place of the app."""
        told = await self.account.failed(exc, self.call, self.caller)
        await answer_to(told, self.endpoint, self.call.asked, self.id).send(self.outlet)

    async def _admit(self) -> bytes | None:
        """Let the call in by its head and read its body; None if the client went away. A form is parsed as it comes.

        A method other than POST makes a call only with a body, and may not say beforehand that it has one.
        """
        settings = self.plan.settings
        announced = self.head.method == "POST" or self.head.declares_body
        if not self.head.is_preflight:
            await self._identify()
        if announced:
            self._check_head()
        try:
            raw: bytes | None = await self.limit(settings.body_timeout, self._reading())
        except DeadlineError:
            message = f"The request body was not complete within {settings.body_timeout:g} seconds"
            raise GateError(408, message, code="request_timeout") from None
        if raw and not announced:
            self._check_head()
            if self.head.is_preflight:
                await self._identify()
            if self._form is not None:
                self._form.feed(raw)
        return raw

    def _reading(self) -> Coroutine[Any, Any, bytes | None]:
        if self._form is None:
            return read_body(self.receive, self.head, self.plan.settings.max_body_bytes)
        return read_form(self.receive, self._form)

    async def _identify(self) -> None:
        self.head.check_single()
        if self.plan.needs_caller:
            self.caller = await self.plan.authenticator.caller(self.scope, presented_key(self.head.named))

    def _check_head(self) -> None:
        endpoint, settings = self.endpoint, self.plan.settings
        if endpoint.policy(settings.policies) == DENY:
            raise not_inspected(endpoint)
        if endpoint.takes_form and (self.head.media_type == FORM or not endpoint.takes_json):
            boundary = self.head.check_form(settings.max_upload_bytes)
            self._form = FormParser(
                boundary, max_bytes=settings.max_upload_bytes, max_text_bytes=settings.max_body_bytes
            )
        else:
            self.head.check(settings.max_body_bytes)

    async def _prepare(self, raw: bytes) -> Body:
        """Decode the body, check it, and have the pre-call hooks change or refuse it; return what the app gets."""
        large = len(raw) > _LARGE
        if self._form is None:
            check_size(raw, self.plan.settings.max_json_values)
        if large:
            await checkpoint()
        self.call = self._decoded(raw)
        carried = self._carried()
        preparation = Preparation(self.plan, self.endpoint, self.call, self.caller)
        if carried is None or not carried.answers_for_itself(self.call.data):
            preparation.check()
        if self.plan.has_hooks:
            await self._equip(large=large)
        if self.plan.ended:
            self.account.begun()
        if self.plan.pre_call:
            await while_connected(self.receive, preparation.pre_call(self.limit), stepping=self._stepping)
            if large:
                await checkpoint()
        if carried is not None:
            look = carried.look(self.call.data, self._form)
            await while_connected(self.receive, look, stepping=self._stepping)
        self.scope = preparation.scope(self.scope)
        return preparation.encode()

    async def _equip(self, *, large: bool) -> None:
        """Put beside the call's data what hooks look for, the body once more among it."""
        if large:
            await checkpoint()
        asked = self.call.asked
        if large:
            await checkpoint()
        self.call.equip(self.scope, self.head, self.id, self.caller, asked)

    def _decoded(self, raw: bytes) -> CallData:
        path_model = model_of(self.scope["path"])
        if self._form is not None:
            return CallData.of_form(self._form.close(), path_model=path_model)
        return CallData(parse(raw), raw, path_model=path_model)

    def _carried(self) -> CarriedCalls | None:
        if not self.endpoint.carries_calls:
            return None
        self.carried = CarriedCalls(self.plan, self.endpoint, self.scope, self.head, self.id, self.caller)
        return self.carried

    async def abandoned(self, *, reached: bool = False) -> None:
        """Account for a call that is cancelled from outside, or whose client is gone."""
        if not reached:
            await self.over()
        if self.account.settled:
            return
        gone = GateError(499, "The client closed the connection", code="client_disconnected")
        with anyio.CancelScope(shield=True):  # each hook has its own time limit
            await self.account.failed(gone, self.call, self.caller)
            await self.log_end(reached=reached)

    async def over(self) -> None:
        """Tell the hooks that nothing is at work for the call any more."""
        if self.plan.ended:
            await self.account.over(self.call, self.caller)

    async def log_end(self, *, reached: bool = False) -> None:
        """Tell the log hooks how the call ended, also where it is being cancelled."""
        if not self.plan.log:
            return
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
                    response=hook.objects(self.endpoint.call_type).whole(self.response),
                    request_headers=self.call.headers,
                )
                added.update(result or {})
            except Exception as exc:  # an answer is on its way: there is nothing to refuse
                log_crash(exc, "%s raised", hook.name)
        return added
