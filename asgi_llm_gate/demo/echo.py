"""The echo model: an OpenAI-compatible server that repeats what it is told, as an ASGI app."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.answer import EVENT_STREAM, Answer
from asgi_llm_gate.body import decode, read_body
from asgi_llm_gate.demo import chat, embeddings, images, messages, moderations, responses, text
from asgi_llm_gate.endpoints import ENDPOINTS, Routes
from asgi_llm_gate.errors import GateError, error_answer
from asgi_llm_gate.head import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    from asgi_llm_gate.shapes import Json, Stream

_MAX_BODY_BYTES = 10_000_000
_MAX_VALUES = 500_000

_ANSWERS: Mapping[str, Callable[[Json], Json]] = {
    "completion": chat.answer,
    "text_completion": text.answer,
    "embeddings": embeddings.answer,
    "image_generation": images.answer,
    "moderation": moderations.answer,
    "responses": responses.answer,
    "anthropic_messages": messages.answer,
}
_STREAMS: Mapping[str, Callable[[Json], Iterator[Json]]] = {
    "completion": chat.chunks,
    "text_completion": text.chunks,
    "responses": responses.chunks,
    "anthropic_messages": messages.chunks,
}


class EchoModel:
    """Answer OpenAI's endpoints for text, embeddings, moderations and images, and Anthropic's for messages.

    Any model's name will do. The last message, the prompt or the input's last item is repeated, a word a token. Streams
    send one chunk a token and stop when the client goes away.

    Args:
        pause: Seconds between the chunks of a stream.
    """

    def __init__(self, *, pause: float = 0.03) -> None:
        self._pause = pause
        self._routes = Routes(endpoint for endpoint in ENDPOINTS if endpoint.call_type in _ANSWERS)
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection.

        Raises:
            RuntimeError: It is no HTTP request.
        """
        if scope["type"] != "http":
            raise RuntimeError(f"the echo model has no {scope['type']}")
        try:
            await self._answer(scope, receive, send)
        except GateError as error:
            await error_answer(error).send(send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removesuffix("/")
        if path.endswith("/models"):
            await self._models(scope["method"]).send(send)
            return
        endpoint = self._routes.find(scope["path"])
        if endpoint is None:
            raise GateError(404, f"Invalid URL ({scope['method']} {scope['path']})", code="unknown_url")
        if scope["method"] != "POST":
            raise _wrong_method(scope["method"], "POST")
        data = await _read(Head.of(scope), receive)
        if data is None:
            return
        if data.get("stream") and endpoint.call_type in _STREAMS:
            await self._stream(_STREAMS[endpoint.call_type](data), endpoint.shape.open_stream(), receive, send)
        else:
            await Answer(200, orjson.dumps(_ANSWERS[endpoint.call_type](data))).send(send)

    def _models(self, method: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            raise _wrong_method(method, "GET, HEAD")
        model = {"id": "echo", "object": "model", "created": self._created, "owned_by": "asgi-llm-gate"}
        return Answer(200, orjson.dumps({"object": "list", "data": [model]}))

    async def _stream(self, chunks: Iterator[Json], form: Stream | None, receive: Receive, send: Send) -> None:
        assert form is not None  # noqa: S101  # what is streamed has the form of a stream
        first = next(chunks)  # what is wrong with the request shows here, while a status can still say so
        async with anyio.create_task_group() as group:

            async def stop_with_the_client() -> None:
                await receive()  # the body is read, so that only a disconnect can follow
                group.cancel_scope.cancel()

            group.start_soon(stop_with_the_client)
            headers = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _send_event(send, sse.encode(first, form.event_name(first)))
            for chunk in chunks:
                await anyio.sleep(self._pause)
                await _send_event(send, sse.encode(chunk, form.event_name(chunk)))
            if form.ends_with_done:
                await _send_event(send, sse.DONE)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()


async def _send_event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})


async def _read(head: Head, receive: Receive) -> dict[str, Any] | None:
    """Read and decode a request's body; None if the client went away."""
    head.check(_MAX_BODY_BYTES)
    raw = await read_body(receive, head, _MAX_BODY_BYTES)
    return None if raw is None else decode(raw, _MAX_VALUES)


def _wrong_method(method: str, allowed: str) -> GateError:
    message = f"Not allowed to {method} here"
    return GateError(405, message, code="method_not_supported", headers={"allow": allowed})
