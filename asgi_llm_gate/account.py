"""How a call ends: exactly once, as a success or as a failure, and who is told."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.errors import stream_error
from asgi_llm_gate.hooks import report_failure
from asgi_llm_gate.lazy import lazy
from asgi_llm_gate.masking import log_crash
from asgi_llm_gate.record import as_record
from asgi_llm_gate.reply import is_event_stream, is_text

if TYPE_CHECKING:
    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.call import CallData
    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.hooks import Hook
    from asgi_llm_gate.outlet import Outlet
    from asgi_llm_gate.plan import Plan

logger = logging.getLogger("asgi_llm_gate")

# Calls whose log events may wait for slow hooks at one time; beyond that events are dropped, and it is said.
MAX_PENDING = 1_000


class Account:
    """One call's account.

    Args:
        plan: The gate's plan.
        endpoint: What is called.
        call_type: The word that hooks are given for that.
        call_id: The call's id.
        start: When it came, in seconds since the epoch.

    Attributes:
        settled: The call has ended.
        failure: Why, if it failed.
    """

    def __init__(self, plan: Plan, endpoint: Endpoint, call_type: str, call_id: str, start: float) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._call_type = call_type
        self._id = call_id
        self._start = datetime.fromtimestamp(start, UTC)
        self._reached = False
        self._logged = False
        self._at_work = False
        self.settled = False
        self.failure: Exception | None = None

    @lazy
    def _telling(self) -> anyio.Lock:
        """Held while the log hooks are told of the call's beginning."""
        return anyio.Lock(fast_acquire=True)

    def begun(self) -> None:
        """Note that the hooks are being asked about the call."""
        self._at_work = True

    async def over(self, call: CallData, caller: UserAPIKeyAuth) -> None:
        """Tell the hooks that nothing is at work for the call any more; once, and only where they know of it."""
        if self._at_work:
            self._at_work = False
            with anyio.CancelScope(shield=True):  # each hook has its own time limit
                for hook in self._plan.ended:
                    await _told(hook, {"data": call.data, "user_api_key_dict": caller})

    def succeeded(self) -> None:
        """Note a success, unless the call has ended before."""
        self.settled = True

    async def failed(self, exc: Exception, call: CallData, caller: UserAPIKeyAuth) -> Exception:
        """Note a failure, and tell the failure hooks.

        Returns:
            What to answer with: the exception, or what a hook put in its place.
        """
        self.settled = True
        self.failure = exc
        with anyio.CancelScope(shield=True):  # what a hook holds for the call it gives back here
            told = await report_failure(self._plan.failure, exc, call.data, caller)
        return told or exc

    async def log_pre_api_call(self, call: CallData) -> None:
        """Tell the log hooks that the call goes to the model; once, and before they are told how it ended."""
        async with self._telling:
            if self._reached:
                return
            self._reached = True
            data = call.data
            await self._tell(
                self._plan.log.pre_api_call,
                model=data.get("model"),
                messages=data.get("messages", data.get("input", data.get("prompt"))),
                kwargs=self._kwargs(call),
            )

    async def log_end(self, call: CallData, outlet: Outlet, *, reached: bool = False) -> None:
        """Tell the log hooks how the call ended; once.

        Args:
            call: The call's data.
            outlet: Where its answer went.
            reached: The call had gone to the model, which the hooks may not have been told yet.
        """
        if self._logged:
            return
        self._logged = True
        if reached:
            await self.log_pre_api_call(call)
        hooks = self._plan.log
        response = None if self.failure is not None else self._response(call, outlet)
        event: dict[str, Any] = {"start_time": self._start, "end_time": datetime.now(UTC)}
        if self.failure is not None:
            kwargs = {**self._kwargs(call), **event, "exception": self.failure}
            await self._tell(hooks.failure_event, kwargs=kwargs, response_obj=None, **event)
            return
        event = {"kwargs": {**self._kwargs(call), **event}, "response_obj": response, **event}
        if is_event_stream(outlet.start):
            await self._tell(hooks.stream_event, **event)
        await self._tell(hooks.success_event, **event)

    async def _tell(self, hooks: tuple[Hook, ...], **event: Any) -> None:
        if not hooks:
            return
        pending = self._plan.pending
        if len(pending) >= MAX_PENDING:
            logger.error("%d calls wait for log hooks: an event is dropped", len(pending))
            return
        ticket = object()
        pending.add(ticket)
        try:
            for hook in hooks:
                if event.get("response_obj") is not None:
                    response = hook.objects(self._endpoint.call_type).whole(event["response_obj"])
                    await _told(hook, {**event, "response_obj": response})
                else:
                    await _told(hook, event)
        finally:
            pending.discard(ticket)

    def _kwargs(self, call: CallData) -> dict[str, Any]:
        """Return what LiteLLM's log handlers look for in `kwargs`."""
        data = call.data
        names = ("model", "messages", "input", "prompt", "user", "stream")
        return {
            **{name: data[name] for name in names if name in data},
            "call_type": self._call_type,
            "litellm_call_id": self._id,
            "litellm_params": {
                "metadata": data.get("metadata"),
                "proxy_server_request": data.get("proxy_server_request"),
            },
            "response_cost": None,
        }

    def _response(self, call: CallData, outlet: Outlet) -> Any:
        """Return the answer as the client got it, a stream put together; None for what can't be read."""
        try:
            return self._read(call, outlet)
        except (TypeError, ValueError, AttributeError, RecursionError):
            return None

    def _read(self, call: CallData, outlet: Outlet) -> Any:
        response: Any = None
        if is_event_stream(outlet.start):
            response = self._assembled(bytes(outlet.body))
        elif self._endpoint.answers_text and is_text(outlet.start, call.data.get("response_format")):
            response = {"text": outlet.body.decode()}
        elif not outlet.truncated:
            response = orjson.loads(outlet.body)
        if outlet.truncated:
            response = {**(response or {}), "truncated": True}
        return as_record(response, self._endpoint.shape.Response)

    def _assembled(self, body: bytes) -> Any:
        assembly = self._endpoint.shape.open_assembly()
        if assembly is None:
            return None
        reader = self._endpoint.shape.open_stream()
        decoder = sse.Decoder(len(body) + 1)
        for event in (*decoder.feed(body), *decoder.close()):
            chunk = sse.json_of(event)
            if chunk is not None:
                assembly.add(chunk)
                if reader is not None and (error := reader.error_of(chunk)):
                    self.failure = stream_error(error)
        return assembly.result()


async def _told(hook: Hook, event: dict[str, Any]) -> None:
    try:
        await hook(**event)
    except Exception as exc:  # it has nothing to refuse
        log_crash(exc, "%s raised", hook.name)
