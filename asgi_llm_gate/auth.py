"""Who is calling: the `UserAPIKeyAuth` that every hook is given, and the key that a request presents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Self

from starlette.requests import Request

CustomAuth = Callable[[Request, str], Any]

# Where clients put a key, in the order in which LiteLLM's proxy looks.
KEY_HEADERS = (b"x-litellm-api-key", b"authorization", b"api-key", b"x-api-key")


class UserAPIKeyAuth:
    """The caller, as LiteLLM's hooks know it: any attribute that is not set reads as None, `metadata` as ``{}``.

    ``api_key`` is never a key in clear: one that begins with ``sk-`` is replaced by its SHA-256, in hex.
    """

    api_key: str | None = None
    token: str | None = None
    key_alias: str | None = None
    user_id: str | None = None
    user_role: str | None = None
    user_email: str | None = None
    team_id: str | None = None
    team_alias: str | None = None
    org_id: str | None = None
    end_user_id: str | None = None
    metadata: dict[str, Any]

    def __init__(self, **fields: Any) -> None:
        api_key = fields.get("api_key")
        if isinstance(api_key, str) and api_key.startswith("sk-"):
            fields["api_key"] = api_key = hash_key(api_key)
        fields.setdefault("token", api_key)
        fields["metadata"] = fields.get("metadata") or {}
        vars(self).update(fields)

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
