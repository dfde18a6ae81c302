"""What every call goes through before the app: its fields are checked, and the pre-call hooks change or refuse it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgi_llm_gate.deployments import with_model
from asgi_llm_gate.errors import internal_error
from asgi_llm_gate.fields import find, require, require_user
from asgi_llm_gate.hooks import new_data

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.body import Body
    from asgi_llm_gate.call import CallData
    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.plan import Plan

logger = logging.getLogger("asgi_llm_gate")


class Preparation:
    """One call's way to the body that the app gets.

    Args:
        plan: The gate's plan.
        endpoint: What is called.
        call: The call's data.
        caller: Who calls; is told who the end user is.
    """

    def __init__(self, plan: Plan, endpoint: Endpoint, call: CallData, caller: UserAPIKeyAuth) -> None:
        self._plan = plan
        self._endpoint = endpoint
        self._call = call
        self._caller = caller
        self._user_params = endpoint.user_params or plan.settings.user_params

    def check(self) -> None:
        """Refuse a call that lacks a field it must carry.

        Raises:
            GateError: 400.
        """
        settings, data = self._plan.settings, self._call.data
        user = find(data, self._endpoint.user_params[0] if self._endpoint.user_params else "user")
        if settings.enforce_user_param:
            user = require_user(data, self._user_params)
        require(data, settings.enforced_params)
        if self._caller.end_user_id is None and isinstance(user, str):
            self._caller.end_user_id = user

    async def pre_call(self) -> None:
        """Have the pre-call hooks change the call.

        Raises:
            Exception: What one of them refuses it with.
        """
        call_type = self._plan.name_of(self._endpoint)
        for hook in self._plan.pre_call:
            result = await hook(
                new_data,
                user_api_key_dict=self._caller,
                cache=self._plan.cache,
                data=self._call.data,
                call_type=call_type,
            )
            if result is not None:
                self._call.replace(result)

    def encode(self) -> Body:
        """Return the canonical encoding of the call as the hooks left it.

        Raises:
            GateError: 500, they left what can't be encoded.
        """
        settings = self._plan.settings
        has_user = self._endpoint.has_user or settings.forward_user == "always"
        try:
            return self._call.for_app(() if has_user or not settings.enforce_user_param else self._user_params)
        except TypeError as exc:
            what = "no form can carry" if self._call.is_form else "is not JSON"
            logger.error("%s left data that %s: %s", self._hook_names(), what, exc)
            raise internal_error() from exc

    def scope(self, scope: Scope) -> Scope:
        """Return the scope for the app: another one where hooks changed the model that its path names.

        Raises:
            GateError: 500, they left what can't stand in a path.
        """
        if not self._call.changes_path:
            return scope
        model = self._call.data.get("model")
        changed = with_model(scope, model)
        if changed is None:
            logger.error("%s left a model that can't stand in the path: %r", self._hook_names(), model)
            raise internal_error()
        return changed

    def _hook_names(self) -> str:
        return ", ".join(hook.name for hook in self._plan.pre_call)
