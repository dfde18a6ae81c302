"""One request to a gate whose app is the echo model, and all that is to be seen on its way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio

from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.gate import LLMGate
from asgi_llm_gate.trial.watch import Step, watched

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from asgi_llm_gate.settings import Settings
    from asgi_llm_gate.trial.request import Request


@dataclass(slots=True)
class Sent:
    """What the app was sent.

    Attributes:
        method: The method.
        path: The path, decoded.
        body: The body.
    """

    method: str
    path: str
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """An answer.

    Attributes:
        status: Its status; 0 if there is none.
        headers: Its headers.
        body: Its body.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def take(self, message: Message) -> None:
        """Take one message of it."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        else:
            self.body += message.get("body", b"")


@dataclass(slots=True)
class Trial:
    """What became of a request.

    Attributes:
        request: The request.
        steps: What happened, in order: the hooks as they began, and what the app was sent.
        said: The app's answer.
        answer: What the client got.
    """

    request: Request
    steps: list[Step | Sent] = field(default_factory=list)
    said: Answer = field(default_factory=Answer)
    answer: Answer = field(default_factory=Answer)


async def run(settings: Settings, request: Request) -> Trial:
    """Send a request through the hooks of a configuration to an echo model."""
    trial = Trial(request)
    callbacks = tuple(watched(callback, trial.steps) for callback in settings.callbacks)
    settings = replace(settings, callbacks=callbacks, callback_settings={}, model_list=(), cache=None, redis_url=None)
    gate = LLMGate(_Recorder(EchoModel(pause=0), trial), **settings.keywords())
    unread = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Message:
        if not unread:
            await anyio.sleep_forever()  # the client stays
        return unread.pop()

    async def send(message: Message) -> None:
        trial.answer.take(message)

    await gate(_scope(request), receive, send)
    return trial


class _Recorder:
    """Keeps what the app is sent, and what it says."""

    def __init__(self, app: ASGIApp, trial: Trial) -> None:
        self._app = app
        self._trial = trial

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # All at once, and also where the app would not ask for it.
        body = [await receive()]
        self._trial.steps.append(Sent(scope["method"], scope["path"], body[0].get("body", b"")))

        async def replay() -> Message:
            return body.pop() if body else await receive()

        async def record(message: Message) -> None:
            self._trial.said.take(message)
            await send(message)

        await self._app(scope, replay, record)


def _scope(request: Request) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(request.headers),
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 4000),
    }
