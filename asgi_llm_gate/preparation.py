"""What every call goes through before the app: its fields are checked, and the pre-call hooks change or refuse it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.deadline import within
from asgi_llm_gate.deployments import with_model
from asgi_llm_gate.errors import internal_error
from asgi_llm_gate.fields import find, require, require_user
from asgi_llm_gate.hooks import new_data
from asgi_llm_gate.model_access import check_access

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from starlette.types import Scope

    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.body import Body
    from asgi_llm_gate.call import CallData
    from asgi_llm_gate.deadline import Limiter
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
        """Refuse a call to a model that its caller may not use, or that lacks a field it must carry.

        Raises:
            GateError: 403 or 400.
        """
        if self._plan.authenticator.limits_models:
            self._check_model()
        settings, data = self._plan.settings, self._call.data
        if settings.enforce_user_param:
            user: Any = require_user(data, self._user_params)
        else:
            user = find(data, self._endpoint.user_params[0] if self._endpoint.user_params else "user")
        require(data, settings.enforced_params)
        if self._caller.end_user_id is None and isinstance(user, str):
            self._caller.end_user_id = user

    def _check_model(self) -> None:
        place = self._endpoint.model
        asked = self._call.model_asked(place or "model")
        check_access(self._caller, (asked,), self._call.data, must_name=place is not None)

    def pre_call(self, limit: Limiter = within) -> Coroutine[Any, Any, None]:
        """Have the pre-call hooks change the call: see the function of that name."""
        return pre_call(self._plan, self._call, self._caller, self._plan.name_of(self._endpoint), limit)

    def encode(self) -> Body:
        """Return the canonical encoding of the call as the hooks left it.

        Raises:
            GateError: 500, they left what can't be encoded.
        """
        settings = self._plan.settings
        has_user = self._endpoint.has_user or settings.forward_user == "always"
        return encode(self._plan, self._call, () if has_user or not settings.enforce_user_param else self._user_params)

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
            logger.error("%s left a model that can't stand in the path: %r", _hook_names(self._plan), model)
            raise internal_error()
        return changed


async def pre_call(plan: Plan, call: CallData, caller: UserAPIKeyAuth, call_type: str, limit: Limiter = within) -> None:
    """Have the pre-call hooks change a call, each within its time limit.

    Raises:
        Exception: What one of them refuses it with.
    """
    for hook in plan.pre_call:
        available = {"user_api_key_dict": caller, "cache": plan.cache, "data": call.data, "call_type": call_type}
        result = await hook.call(available, new_data, limit)
        if result is not None:
            call.replace(result)


def encode(plan: Plan, call: CallData, dropped: Iterable[str] = ()) -> Body:
    """Return the canonical encoding of a call as the hooks left it, without some of its fields.

    Raises:
        GateError: 500, they left what can't be encoded.
    """
    try:
        return call.for_app(dropped)
    except TypeError as exc:
        what = "no form can carry" if call.is_form else "is not JSON"
        logger.error("%s left data that %s: %s", _hook_names(plan), what, exc)
        raise internal_error() from exc


def _hook_names(plan: Plan) -> str:
    return ", ".join(hook.name for hook in plan.pre_call)
