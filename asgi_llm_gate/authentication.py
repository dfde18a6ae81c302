"""Finding out who calls: by `custom_auth`, by the configured keys, by the host's own authentication."""

from __future__ import annotations

import hmac
import inspect
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from starlette.requests import Request

from asgi_llm_gate.auth import CustomAuth, UserAPIKeyAuth, hash_key
from asgi_llm_gate.deadline import DeadlineError, within
from asgi_llm_gate.errors import GateError, intended
from asgi_llm_gate.keys import Keys, Limits
from asgi_llm_gate.masking import keep_secret, log_crash

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.settings import Settings

logger = logging.getLogger("asgi_llm_gate")


class Authenticator:
    """Who may call, and who calls.

    Asked in this order: `custom_auth`; the configured keys and the master key; the host's own ``scope["user"]``; and
    last the presented key alone, by its hash. What `users` and `teams` say of a caller holds whoever found it.

    Args:
        settings: The gate's settings.

    Attributes:
        required: Not everybody may call.
        limits_models: Some caller may use certain models only.
    """

    def __init__(self, settings: Settings) -> None:
        self._custom_auth = settings.custom_auth
        self._timeout = settings.hook_timeout
        self._keys = Keys(settings.keys)
        self._master = hash_key(settings.master_key) if settings.master_key else None
        self._limits = Limits(settings.users, settings.teams) if settings.users or settings.teams else None
        has_keys = bool(self._keys) or self._master is not None
        self.required = has_keys or self._custom_auth is not None
        self.limits_models = self._custom_auth is not None or any(key.get("models") for key in settings.keys)

    async def caller(self, scope: Scope, key: str | None) -> UserAPIKeyAuth:
        """Return who calls, as an object of the call's own.

        Args:
            scope: The call's; of a WebSocket, as of an HTTP request.
            key: The key that it presents.

        Raises:
            GateError: 401, it is nobody who may call; 503, `custom_auth` took more than `hook_timeout` seconds.
            Exception: What `custom_auth` raised on purpose.
        """
        if self.required:
            keep_secret(key)
        if self._custom_auth is not None:
            caller = await self._ask(self._custom_auth, scope, key)
        elif self.required:
            caller = self._known(scope, key)
        else:
            caller = UserAPIKeyAuth(api_key=hash_key(key) if key else None, user_id=_host_user(scope))
        if self._limits is not None:
            self._limits.add_to(caller)
        return caller

    def _known(self, scope: Scope, key: str | None) -> UserAPIKeyAuth:
        if not key:
            raise _unauthorized("No API key was passed in")
        digest = hash_key(key)
        caller = self._keys.caller(digest)
        if caller is not None:
            caller.user_id = caller.user_id or _host_user(scope)
            return caller
        if self._master is None or not hmac.compare_digest(digest, self._master):
            raise _unauthorized("Incorrect API key")
        return UserAPIKeyAuth(api_key=digest, user_id="default_user_id", user_role="proxy_admin")

    async def _ask(self, custom_auth: CustomAuth, scope: Scope, key: str | None) -> UserAPIKeyAuth:
        """Call ``custom_auth(request, api_key)`` as LiteLLM does; what it raises is a 401 unless it says otherwise."""
        try:
            answer = custom_auth(Request(scope), key or "")
            caller = await within(self._timeout, answer) if isinstance(answer, Awaitable) else answer
        except DeadlineError:
            logger.error("custom_auth took more than %g seconds", self._timeout)
            raise GateError(503, "Authentication is not available", code="authentication_unavailable") from None
        except Exception as exc:
            if intended(exc):
                raise
            log_crash(exc, "custom_auth failed")
            raise _unauthorized("Authentication failed") from exc
        if isinstance(caller, str):
            return UserAPIKeyAuth(api_key=hash_key(caller))
        if not isinstance(caller, UserAPIKeyAuth) and not hasattr(caller, "model_copy"):
            raise _unauthorized("Authentication failed")
        # A copy, for the function may keep one object for all calls of a key; litellm's own class has the method too.
        copy: UserAPIKeyAuth = caller.model_copy()
        if key:
            _hide_key(copy, key)
        return copy


def _hide_key(caller: UserAPIKeyAuth, key: str) -> None:
    """Put a key's hash where the function has put the key itself."""
    for name in ("api_key", "token"):
        if getattr(caller, name, None) == key:
            setattr(caller, name, hash_key(key))


def _unauthorized(message: str) -> GateError:
    return GateError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _host_user(scope: Scope) -> str | None:
    """Return the id of the user that Starlette's or Django's own authentication found."""
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    for name in ("pk", "identity", "username", "display_name"):
        try:
            value = inspect.getattr_static(user, name, None) and getattr(user, name)
        except NotImplementedError:  # starlette's BaseUser declares what it does not have
            continue
        if value:
            return str(value)
    return None
