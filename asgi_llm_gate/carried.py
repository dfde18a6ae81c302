"""Calls that come in a file: looked into when it is uploaded, and remembered for the batch that names it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.batches import Row, check_batch, is_batch, read_row, remember, rewrite
from asgi_llm_gate.body import decode
from asgi_llm_gate.call import CallData
from asgi_llm_gate.deployments import model_of
from asgi_llm_gate.endpoints import not_inspected
from asgi_llm_gate.moderation import moderate
from asgi_llm_gate.preparation import Preparation
from asgi_llm_gate.uploads import Upload

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.forms import FormParser
    from asgi_llm_gate.head import Head
    from asgi_llm_gate.plan import Plan


class CarriedCalls:
    """What one upload or batch has to do with calls of its own.

    Moderation hooks judge each row before the file goes on: there is no call to run beside.

    Args:
        plan: The gate's plan.
        endpoint: What is called.
        scope: The call's scope.
        head: Its head.
        call_id: Its id.
        caller: Who calls.
    """

    def __init__(
        self, plan: Plan, endpoint: Endpoint, scope: Scope, head: Head, call_id: str, caller: UserAPIKeyAuth
    ) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._scope = scope
        self._head = head
        self._id = call_id
        self._caller = caller
        self._urls: frozenset[str] | None = None

    def answers_for_itself(self, data: dict[str, Any]) -> bool:
        """Tell whether it is the rows that must say who the user is."""
        return self._endpoint.call_type == "batches" or is_batch(data)

    async def look(self, data: dict[str, Any], form: FormParser | None) -> None:
        """Look into a file of calls, and put what hooks made of it in its place; let no batch pass without.

        Raises:
            GateError: A row is refused; or this is no file that can be looked into.
        """
        if self._endpoint.call_type == "batches":
            await check_batch(self._plan.cache, data, self._caller)
        elif is_batch(data):
            upload = data.get("file")
            if form is None or not isinstance(upload, Upload):
                raise not_inspected(self._endpoint)
            new = form.spool.create(upload.filename, upload.content_type)
            self._urls = await rewrite(upload, new, self._judge, self._plan.settings.max_body_bytes)
            data["file"] = new

    @property
    def to_remember(self) -> bool:
        """The file's id is to be read from the answer."""
        return self._urls is not None

    async def remember(self, response: Any) -> None:
        """Take the answer to the upload."""
        if self._urls is not None:
            await remember(self._plan.cache, response, self._urls, self._caller)

    async def _judge(self, line: bytes) -> Row:
        plan, max_values = self._plan, self._plan.settings.max_json_values
        row = read_row(line, plan.batched, max_values)
        call = CallData(decode(row.body, max_values), row.body, path_model=model_of(row.url))
        caller = self._caller.model_copy()
        preparation = Preparation(plan, row.endpoint, call, caller)
        scope = {**self._scope, "path": row.url}
        preparation.check()
        if plan.has_hooks:
            call.equip(scope, self._head, self._id, caller, via="file")
        await preparation.pre_call()
        await moderate(plan.moderation, data=call.data, user_api_key_dict=caller, call_type=plan.name_of(row.endpoint))
        body = preparation.encode().content()
        return replace(row, url=preparation.scope(scope)["path"], body=body)
