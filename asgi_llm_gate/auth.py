"""Who is calling: the `UserAPIKeyAuth` that every hook is given."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from starlette.requests import Request

from asgi_llm_gate.deadline import DeadlineError, within
from asgi_llm_gate.errors import GateError, intended

if TYPE_CHECKING:
    from starlette.types import Scope

logger = logging.getLogger("asgi_llm_gate")

CustomAuth = Callable[[Request, str], Any]

# Where clients put a key, in the order in which LiteLLM's proxy looks.
KEY_HEADERS = (b"x-litellm-api-key", b"authorization", b"api-key", b"x-api-key")


class UserAPIKeyAuth:
    """The caller, as LiteLLM's hooks know it: any attribute that is not set reads as None, `metadata` as ``{}``.

    ``api_key`` is never a key in clear: one that begins with ``sk-`` is replaced by its SHA-256, in hex.
    """

    api_key: str | None
    token: str | None
    key_alias: str | None
    user_id: str | None
    user_role: str | None
    user_email: str | None
    team_id: str | None
    team_alias: str | None
    org_id: str | None
    end_user_id: str | None
    metadata: dict[str, Any]

    def __init__(self, **fields: Any) -> None:
        api_key = fields.get("api_key")
        if isinstance(api_key, str) and api_key.startswith("sk-"):
            fields["api_key"] = hash_key(api_key)
        fields.setdefault("token", fields.get("api_key"))
        vars(self).update({**fields, "metadata": fields.get("metadata") or {}})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name not in {"api_key", "token"}}
        return f"UserAPIKeyAuth({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or the default where it is not set."""
        return vars(self).get(name, default)

    def model_dump(self, **_options: Any) -> dict[str, Any]:
        """Return the fields that are set, as a new dict."""
        return dict(vars(self))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, **_options: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self)(**{**vars(self), **(update or {})})


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key in hex, the form in which LiteLLM and the gate name keys."""
    return hashlib.sha256(key.encode()).hexdigest()


def presented_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the key a request presents, from the headers of lower-case names, or None."""
    for name in KEY_HEADERS:
        value = headers.get(name)
        if value:
            scheme, _, token = value.decode("latin-1").strip().partition(" ")
            return token.strip() if token and scheme.lower() == "bearer" else value.decode("latin-1").strip()
    return None


async def authenticate(
    scope: Scope, key: str | None, master_key: str | None, custom_auth: CustomAuth | None, *, timeout: float = 30.0
) -> UserAPIKeyAuth:
    """Return the caller, or raise a 401.

    Asked in this order: ``custom_auth``, the master key, the host's own ``scope["user"]``, and last the key
    alone, by its hash. With neither ``custom_auth`` nor a master key everybody may call.

    Raises:
        GateError: 401, it is nobody who may call; 503, ``custom_auth`` took more than ``timeout`` seconds.
    """
    if custom_auth is not None:
        return await _ask(custom_auth, scope, key, timeout)
    if master_key is not None:
        return _master(key, master_key)
    return UserAPIKeyAuth(api_key=hash_key(key) if key else None, user_id=_host_user(scope))


async def _ask(custom_auth: CustomAuth, scope: Scope, key: str | None, timeout: float) -> UserAPIKeyAuth:
    """Call ``custom_auth(request, api_key)`` as LiteLLM does; what it raises is a 401 unless it says otherwise."""
    try:
        answer = custom_auth(Request(scope), key or "")
        caller = await within(timeout, answer) if isinstance(answer, Awaitable) else answer
    except DeadlineError:
        logger.error("custom_auth took more than %g seconds", timeout)
        raise GateError(503, "Authentication is not available", code="authentication_unavailable") from None
    except Exception as exc:
        if intended(exc):
            raise
        logger.error("custom_auth failed", exc_info=exc)
        raise _unauthorized("Authentication failed") from exc
    if isinstance(caller, str):
        return UserAPIKeyAuth(api_key=hash_key(caller))
    if not isinstance(caller, UserAPIKeyAuth) and not hasattr(caller, "model_copy"):
        raise _unauthorized("Authentication failed")
    # A copy, for the function may keep one object for all calls of a key; litellm's own class has the method too.
    copy: UserAPIKeyAuth = caller.model_copy()
    return copy


def _master(key: str | None, master_key: str) -> UserAPIKeyAuth:
    if key is None:
        raise _unauthorized("No API key was passed in")
    if not hmac.compare_digest(key.encode(), master_key.encode()):
        raise _unauthorized("Incorrect API key")
    return UserAPIKeyAuth(api_key=hash_key(key), user_id="default_user_id", user_role="proxy_admin")


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
