"""One call's data: what the client sent, what hooks find beside it, and what of it goes on to the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.auth import KEY_HEADERS, UserAPIKeyAuth

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.body import Head

# The gate's own keys beside the client's: a client can't set them, and the app never gets them.
OWN_KEYS = ("proxy_server_request", "litellm_call_id", "secret_fields", "litellm_metadata", "litellm_logging_obj")

_SECRET = frozenset({name.decode() for name in KEY_HEADERS} | {"cookie", "proxy-authorization"})


class CallData:
    """The one dict that all hooks of a call are given, and what the gate knows about it.

    Attributes:
        data: That dict.
    """

    def __init__(self, data: dict[str, Any], raw: bytes = b"{}") -> None:
        for name in OWN_KEYS:
            data.pop(name, None)
        self.data = data
        self._raw = raw
        self._own: dict[str, Any] = {}
        self._sent_metadata = "metadata" in data
        self._metadata = data.get("metadata", {})

    @property
    def headers(self) -> dict[str, str]:
        """The client's headers, without those that carry secrets."""
        headers: dict[str, str] = self._own.get("proxy_server_request", {}).get("headers", {})
        return headers

    @property
    def asked(self) -> dict[str, Any]:
        """The client's body as it came, for answers in the form that the client asked for."""
        asked: dict[str, Any] = orjson.loads(self._raw)
        return asked

    def equip(
        self, scope: Scope, head: Head, call_id: str, caller: UserAPIKeyAuth, asked: dict[str, Any] | None = None
    ) -> None:
        """Add the keys that handlers written for LiteLLM's proxy read; `asked` is a copy of the body to give them."""
        raw_headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.named.items()}
        headers = {name: value for name, value in raw_headers.items() if name not in _SECRET}
        url = _url(scope, raw_headers)
        self._own = {
            "metadata": {
                **self._copied_metadata(),
                "requester_metadata": self._metadata,
                "headers": headers,
                "endpoint": url,
                "user_agent": headers.get("user-agent"),
                "requester_ip_address": (scope.get("client") or (None,))[0],
                "user_api_key": caller.api_key,
                "user_api_key_hash": caller.api_key,
                "user_api_key_alias": caller.key_alias,
                "user_api_key_user_id": caller.user_id,
                "user_api_key_team_id": caller.team_id,
                "user_api_key_end_user_id": caller.end_user_id,
                "user_api_key_metadata": caller.metadata,
                "user_api_key_auth": caller,
            },
            "proxy_server_request": {
                "url": url,
                "method": head.method,
                "headers": headers,
                "body": asked or self.asked,
            },
            "litellm_call_id": call_id,
            "secret_fields": {"raw_headers": raw_headers},
            "litellm_metadata": {},
        }
        self.data.update(self._own)

    def _copied_metadata(self) -> dict[str, Any]:
        """Return a copy of the client's metadata without the names that only the gate may set."""
        if not self._metadata or not isinstance(self._metadata, dict):
            return {}
        # Decoded once more, for encoding it first could take as long again.
        return {name: value for name, value in self.asked["metadata"].items() if not name.startswith("user_api_key")}

    def replace(self, new: dict[str, Any]) -> None:
        """Take over what a hook returned, in the same dict; the gate's own keys stay."""
        if new is not self.data:
            content = {**self._own, **new}
            self.data.clear()
            self.data.update(content)

    def for_app(self, dropped: Iterable[str] = ()) -> bytes:
        """Return the canonical encoding of what the app is to get.

        The client's `metadata` goes on as it came, from the hooks' ``data["metadata"]["requester_metadata"]``.

        Args:
            dropped: Names of fields not to forward.

        Raises:
            TypeError: The hooks left something that is not JSON.
        """
        content = self.data
        if self._own or dropped:
            content = {name: value for name, value in content.items() if name not in OWN_KEYS}
            if self._own:
                self._restore_metadata(content)
            for name in dropped:
                content.pop(name, None)
        return orjson.dumps(content)

    def _restore_metadata(self, content: dict[str, Any]) -> None:
        metadata = content.pop("metadata", None)
        known = isinstance(metadata, Mapping) and "requester_metadata" in metadata
        requested = metadata["requester_metadata"] if known else self._metadata
        if self._sent_metadata or requested:
            content["metadata"] = requested


def _url(scope: Scope, headers: Mapping[str, str]) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    base = f"{scope.get('scheme', 'http')}://{headers.get('host', '')}{scope['path']}"
    return f"{base}?{query}" if query else base
