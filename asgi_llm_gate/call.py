"""One call's data: what the client sent, what hooks find beside it, and what of it goes on to the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson

from asgi_llm_gate.auth import KEY_HEADERS, UserAPIKeyAuth
from asgi_llm_gate.body import Body, json_body
from asgi_llm_gate.fields import find
from asgi_llm_gate.form_body import encode_form
from asgi_llm_gate.form_data import form_data, without_files
from asgi_llm_gate.masking import mask_query

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.forms import Part
    from asgi_llm_gate.head import Head

# The gate's own keys beside the client's: a client can't set them, and the app never gets them.
OWN_KEYS = frozenset(
    {"proxy_server_request", "litellm_call_id", "secret_fields", "litellm_metadata", "litellm_logging_obj"}
)

Via = Literal["http", "websocket", "file"]

# A browser puts a key among the subprotocols of a WebSocket.
_SECRET = frozenset(
    {name.decode() for name in KEY_HEADERS}
    | {"cookie", "proxy-authorization", "sec-websocket-protocol", "x-goog-api-key"}
)


class CallData:
    """The one dict that all hooks of a call are given, and what the gate knows about it.

    Args:
        data: The decoded body.
        raw: The same as JSON, of files the names alone.
        form: The parts of a form; None for JSON.
        path_model: The model that the path names, if it does; hooks find it as ``data["model"]``.

    Attributes:
        data: The one dict.
    """

    def __init__(
        self,
        data: dict[str, Any],
        raw: bytes = b"{}",
        form: list[Part] | None = None,
        *,
        path_model: str | None = None,
    ) -> None:
        if not OWN_KEYS.isdisjoint(data):
            for name in OWN_KEYS:
                data.pop(name, None)
        self.data = data
        self._raw = raw
        self._form = form
        self._path_model = path_model
        self._own: dict[str, Any] = {}

    @classmethod
    def of_form(cls, parts: list[Part], *, path_model: str | None = None) -> Self:
        """Make the data of a form.

        Raises:
            GateError: 400, the form is ambiguous.
        """
        data = form_data(parts)
        return cls(data, orjson.dumps(without_files(data)), parts, path_model=path_model)

    @property
    def is_form(self) -> bool:
        """The call came as a form, and goes on as one."""
        return self._form is not None

    @property
    def headers(self) -> dict[str, str]:
        """The client's headers, without those that carry secrets."""
        headers: dict[str, str] = self._own.get("proxy_server_request", {}).get("headers", {})
        return headers

    @property
    def asked(self) -> dict[str, Any]:
        """The client's body as it came, for answers in the form that the client asked for."""
        asked: dict[str, Any] = orjson.loads(self._raw)
        if self._path_model is not None:
            asked.setdefault("model", self._path_model)
        return asked

    def model_asked(self, place: str) -> Any:
        """Return the model that the path names, or the body at a place, dotted if it is a nested one; None for none."""
        return find(self.data, place) if self._path_model is None else self._path_model

    def equip(
        self,
        scope: Scope,
        head: Head,
        call_id: str,
        caller: UserAPIKeyAuth,
        asked: dict[str, Any] | None = None,
        *,
        via: Via = "http",
    ) -> None:
        """Add the keys that handlers written for LiteLLM's proxy read, and how the call came.

        Args:
            scope: Where it came.
            head: Its head.
            call_id: Its id.
            caller: Who calls.
            asked: A copy of the body to give them.
            via: ``http``; ``websocket``: as an event; ``file``: as a line of a file of calls.
        """
        self._sent_model = self.data.get("model")
        self._sent_metadata = "metadata" in self.data
        self._metadata = self.data.get("metadata", {})
        raw_headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.named.items()}
        headers = dict(raw_headers)
        for name in _SECRET.intersection(raw_headers):
            del headers[name]
        url = _url(scope, raw_headers)
        metadata = {
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
        }
        self._own = {
            "metadata": {**self._copied_metadata(), **metadata} if self._metadata else metadata,
            "proxy_server_request": {
                "url": url,
                "method": head.method,
                "headers": headers,
                "body": self.asked if asked is None else asked,
                "via": via,
            },
            "litellm_call_id": call_id,
            "secret_fields": {"raw_headers": raw_headers},
            "litellm_metadata": {},
        }
        self.data.update(self._own)
        if self._path_model is not None:
            self.data["model"] = self._path_model

    def _copied_metadata(self) -> dict[str, Any]:
        """Return a copy of the client's metadata without the names that only the gate may set."""
        if not isinstance(self._metadata, dict):
            return {}
        # Decoded once more, for encoding it first could take as long again.
        return {name: value for name, value in self.asked["metadata"].items() if not name.startswith("user_api_key")}

    def replace(self, new: dict[str, Any]) -> None:
        """Take over what a hook returned, in the same dict; the gate's own keys stay."""
        if new is not self.data:
            content = {**self._own, **new}
            self.data.clear()
            self.data.update(content)

    def for_app(self, dropped: Iterable[str] = ()) -> Body:
        """Return the canonical encoding of what the app is to get.

        The client's `metadata` goes on as it came, from the hooks' ``data["metadata"]["requester_metadata"]``.

        Args:
            dropped: Names of fields not to forward, dotted for nested ones.

        Raises:
            TypeError: The hooks left something that is not JSON, or that no form can carry.
        """
        content = self.data
        if self._own or dropped:
            content = {name: value for name, value in content.items() if name not in OWN_KEYS}
            if self._own:
                self._restore_metadata(content)
                if self._path_model is not None and not self.changes_path:
                    self._restore_model(content)
            for name in dropped:
                content = _without(content, name)
        return json_body(orjson.dumps(content)) if self._form is None else encode_form(content, self._form)

    @property
    def changes_path(self) -> bool:
        """Hooks have changed the model that the path names."""
        return bool(self._own) and self._path_model is not None and self.data.get("model") != self._path_model

    def _restore_model(self, content: dict[str, Any]) -> None:
        """Put back what the body said, which counts for nothing there."""
        if self._sent_model is None:
            del content["model"]
        else:
            content["model"] = self._sent_model

    def _restore_metadata(self, content: dict[str, Any]) -> None:
        metadata = content.pop("metadata", None)
        known = isinstance(metadata, (dict, Mapping)) and "requester_metadata" in metadata
        requested = metadata["requester_metadata"] if known else self._metadata
        if self._sent_metadata or requested:
            content["metadata"] = requested


def _without(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy without a field, dotted if it is nested; an object of which it was all goes with it."""
    outer, _, rest = name.partition(".")
    kept = dict(content)
    if rest and isinstance(kept.get(outer), Mapping):
        kept[outer] = _without(kept[outer], rest)
    if not rest or kept.get(outer) == {}:
        kept.pop(outer, None)
    return kept


def _url(scope: Scope, headers: Mapping[str, str]) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    base = f"{scope.get('scheme', 'http')}://{headers.get('host', '')}{scope['path']}"
    return mask_query(f"{base}?{query}") if query else base
