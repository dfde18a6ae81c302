"""From a client's call to the request an upstream gets, or to an answer that needs none."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.answer import Answer
from asgi_llm_gate.errors import GateError, quoted, too_large
from asgi_llm_gate.form_body import encode_form
from asgi_llm_gate.form_data import form_data
from asgi_llm_gate.form_headers import form_boundary
from asgi_llm_gate.forms import FormParser
from asgi_llm_gate.forwarder.client import UpstreamRequest
from asgi_llm_gate.forwarder.headers import (
    declared_length,
    forwarded,
    is_encoded,
    media_type,
    snapshot,
    with_body,
    with_json_body,
)
from asgi_llm_gate.forwarder.upstream import api_prefix, asked_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from starlette.types import Message, Scope

    from asgi_llm_gate.answer import Headers
    from asgi_llm_gate.forwarder.body import RequestBody
    from asgi_llm_gate.forwarder.routes import Routes
    from asgi_llm_gate.forwarder.upstream import Upstream

# TRACE would show the client the upstream's credentials; CONNECT asks for a tunnel.
_REFUSED_METHODS = ("CONNECT", "TRACE")
_BODILESS_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asks for, apart from the body."""

    method: str
    path: str
    query: bytes
    headers: Headers

    @classmethod
    def of(cls, scope: Scope) -> Call:
        """Read an ``http`` scope.

        Raises:
            GateError: The method or the path can't be forwarded.
        """
        method = scope["method"].upper()
        if method in _REFUSED_METHODS:
            raise GateError(405, f"{method} is not forwarded", code="method_not_allowed")
        return cls(method, asked_path(scope), scope.get("query_string", b""), snapshot(scope["headers"]))

    def to(
        self,
        upstream: Upstream,
        content: bytes | AsyncIterable[bytes],
        headers: Headers,
        length: int | None = None,
    ) -> UpstreamRequest:
        """Make the request for an upstream.

        Args:
            upstream: That one.
            content: Its body.
            headers: What the client's headers have become.
            length: How many bytes a body has that is in chunks, if that is not what the client declared.

        Raises:
            GateError: The URL is too long.
        """
        url = upstream.base.url(self.path, self.query)
        sent = forwarded(headers, own=upstream.headers, keep_credentials=upstream.keep_credentials)
        if length is None:
            length = len(content) if isinstance(content, bytes) else declared_length(self.headers)
        if length or (length is not None and self.method not in _BODILESS_METHODS):
            sent += ((b"content-length", b"%d" % length),)
        return UpstreamRequest(self.method, url, sent, content, upstream.timeout)


class SinglePlan:
    """Everything goes to one upstream.

    Args:
        upstream: That one.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def request(self, call: Call, body: RequestBody) -> UpstreamRequest | Answer:
        """Plan a call, its body streamed.

        Raises:
            ClientGone: The client is gone.
            GateError: The call can't be forwarded.
        """
        return call.to(self._upstream, await body.content(), call.headers)


class ModelPlan:
    """A call goes to an upstream of its model.

    Args:
        routes: The models and their upstreams.
        max_body_bytes: The largest JSON body, and of a form all its fields that are no files.
        max_upload_bytes: The largest form.
        created: What the list of models gives as their age, in Unix seconds.
    """

    def __init__(self, routes: Routes, max_body_bytes: int, max_upload_bytes: int, *, created: int) -> None:
        self._routes = routes
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._created = created

    async def request(self, call: Call, body: RequestBody) -> UpstreamRequest | Answer:
        """Plan a call: read its JSON or its form, or stream what is neither to the only upstream there is.

        Raises:
            ClientGone: The client is gone.
            GateError: The call can't be forwarded, or no upstream serves it.
        """
        listed = self._listed(call)
        if listed is not None:
            return Answer(200, orjson.dumps(listed))
        if _is_form(call):
            return await self._of_form(call, body)
        if not _may_be_json(call):
            return call.to(self._only(), await body.content(), call.headers)
        if (declared_length(call.headers) or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        raw = await body.whole(self._max_body_bytes)
        if not raw:
            return call.to(self._only(), raw, call.headers)
        return self._routed(call, raw)

    def _routed(self, call: Call, raw: bytes) -> UpstreamRequest:
        data = _decoded(call, raw)
        upstream, model = self._serving(data.get("model"))
        content = raw if model is None else _encoded({**data, "model": model})
        return call.to(upstream, content, with_json_body(call.headers))

    async def _of_form(self, call: Call, body: RequestBody) -> UpstreamRequest:
        if is_encoded(call.headers):
            raise _encoded_body()
        boundary = form_boundary(dict(call.headers)[b"content-type"])
        form = FormParser(boundary, max_bytes=self._max_upload_bytes, max_text_bytes=self._max_body_bytes)
        with ExitStack() as files:
            files.callback(form.discard)
            async for chunk in body:
                form.feed(chunk)
            parts = form.close()
            data = form_data(parts)
            upstream, model = self._serving(data.get("model"))
            new = encode_form({**data, "model": model}, parts)
            headers = with_body(call.headers, new.content_type)
            request = call.to(upstream, _chunks(new.messages), headers, new.length)
            return replace(request, close=files.pop_all().close)

    def _serving(self, model: Any) -> tuple[Upstream, str | None]:
        """Return the upstream of a model, and what it is called there."""
        if model is None and self._routes.only is not None:
            return self._routes.only, None
        if not isinstance(model, str) or not model:
            raise GateError(400, "A model is required, as text", param="model")
        deployment = self._routes.pick(model)
        if deployment is None:
            raise _unknown(model)
        return deployment.upstream, deployment.model

    def _only(self) -> Upstream:
        if self._routes.only is None:
            raise GateError(400, "Nothing in this request tells which upstream it is for", param="model")
        return self._routes.only

    def _listed(self, call: Call) -> dict[str, Any] | None:
        """Answer what models there are, or None if that is not the question."""
        if call.method not in ("GET", "HEAD"):
            return None
        path = call.path.removesuffix("/")
        if path.endswith("/models"):
            return {"object": "list", "data": [self._entry(name) for name in self._routes.names]}
        asked = path.removeprefix(api_prefix(path))
        if not asked.startswith("/models/"):
            return None
        name = asked.removeprefix("/models/")
        if self._routes.pick(name) is None:
            raise _unknown(name)
        return self._entry(name)

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "openai"}


def _is_form(call: Call) -> bool:
    return call.method not in _BODILESS_METHODS and media_type(call.headers) == b"multipart/form-data"


async def _chunks(messages: Iterable[Message]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message["body"]


def _may_be_json(call: Call) -> bool:
    """Tell JSON from forms and files; no content type, or curl's own for ``--data``, is JSON as well."""
    if call.method in _BODILESS_METHODS:
        return False
    media = media_type(call.headers)
    return media in (b"", b"application/x-www-form-urlencoded") or media.endswith((b"/json", b"+json"))


def _decoded(call: Call, raw: bytes) -> dict[str, Any]:
    if is_encoded(call.headers):
        raise _encoded_body()
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise GateError(400, f"The request body is no valid JSON: {exc}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise GateError(400, "The request body must be a JSON object", code="invalid_json")
    return data


def _encoded(data: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:  # deeper than it writes, though not than it reads
        raise GateError(400, "The request body is nested too deeply", code="invalid_json") from None


def _encoded_body() -> GateError:
    return GateError(415, "A compressed body is not accepted", code="unsupported_content_encoding")


def _unknown(model: str) -> GateError:
    return GateError(404, f"The model {quoted(model)} does not exist", param="model", code="model_not_found")
