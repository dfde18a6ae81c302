"""What the client says on a WebSocket, decoded, looked at by the hooks, and encoded anew."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.body import decode
from asgi_llm_gate.call import CallData
from asgi_llm_gate.errors import GateError, too_large
from asgi_llm_gate.fields import find, require, require_user
from asgi_llm_gate.model_access import check_access
from asgi_llm_gate.moderation import moderate
from asgi_llm_gate.preparation import encode, pre_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Scope

    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.head import Head
    from asgi_llm_gate.plan import Plan
    from asgi_llm_gate.shapes import Dialogue, Json


class ClientEvents:
    """The client's side of one socket.

    Args:
        plan: The gate's.
        dialogue: The events' protocol.
        scope: The connection, as of an HTTP request.
        head: Its headers.
        caller: Who is calling.
        refused: Is told of each event that does not go on: why, the event, and the call's data.

    Attributes:
        call: The last call that went on to the app.
        caller: Who made it.
    """

    def __init__(
        self,
        plan: Plan,
        dialogue: Dialogue,
        scope: Scope,
        head: Head,
        caller: UserAPIKeyAuth,
        refused: Callable[[Exception, Json, CallData], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._dialogue = dialogue
        self._scope = scope
        self._head = head
        self._caller = caller
        self._refused = refused
        litellm = plan.settings.call_type_names == "litellm"
        self._call_type = dialogue.LITELLM_CALL_TYPE if litellm else dialogue.CALL_TYPE
        self.call = CallData({})
        self.caller = caller

    async def checked(self, message: Message) -> Message | None:
        """Return what the app gets for one `websocket.receive`, or None where that is nothing."""
        event: Json = {}
        call = CallData({})
        try:
            event = self._decoded(message)
            if not self._dialogue.is_asking(event):
                return _message(orjson.dumps(event))
            body = self._dialogue.body(event)
            call = CallData(body, orjson.dumps(body))
            return _message(await self._asked(event, call))
        except Exception as exc:
            await self._refused(exc, event, call)
            return None

    def _decoded(self, message: Message) -> Json:
        settings = self._plan.settings
        text: str | None = message.get("text")
        if text is None:
            raise GateError(400, "Send events as text: this gate lets no binary messages through", code="invalid_json")
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > settings.max_body_bytes:
            raise too_large(settings.max_body_bytes)
        return decode(raw, settings.max_json_values)

    async def _asked(self, event: Json, call: CallData) -> bytes:
        """Have the hooks look at a call; return the event that goes on."""
        plan, settings = self._plan, self._plan.settings
        user: Any = call.data.get("user")
        starts = self._dialogue.starts_response(event)
        if plan.authenticator.limits_models:
            named = [find(call.data, place) for place in self._dialogue.MODELS]
            check_access(self._caller, named, call.data, must_name=starts)
        if starts:
            if settings.enforce_user_param:
                user = require_user(call.data, settings.user_params)
            require(call.data, settings.enforced_params)
        caller = self._caller
        if caller.end_user_id is None and isinstance(user, str):
            caller = caller.model_copy(update={"end_user_id": user})
        if plan.has_hooks:
            call.equip(self._scope, self._head, secrets.token_hex(16), caller, via="websocket")
        await pre_call(plan, call, caller, self._call_type)
        left: Json = orjson.loads(encode(plan, call).content())
        await moderate(plan.moderation, data=call.data, user_api_key_dict=caller, call_type=self._call_type)
        self.call, self.caller = call, caller
        return orjson.dumps(self._dialogue.with_body(event, left))


def _message(raw: bytes) -> Message:
    return {"type": "websocket.receive", "text": raw.decode()}
