"""A trial as text."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from asgi_llm_gate.auth import presented_key
from asgi_llm_gate.config_file import one_line
from asgi_llm_gate.endpoints import Routes
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.masking import without
from asgi_llm_gate.trial.sending import Sent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.settings import Settings
    from asgi_llm_gate.trial.sending import Answer, Trial
    from asgi_llm_gate.trial.watch import Step

_STREAM = b"text/event-stream"


def report(trial: Trial, settings: Settings) -> str:
    """Return what became of a request: the hooks in turn, what the app was sent, and what the client got."""
    key = presented_key(dict(trial.request.headers))
    return "\n".join(one_line(without(key, line)) for line in _lines(trial, settings))


def _lines(trial: Trial, settings: Settings) -> Iterator[str]:
    request = trial.request
    yield f"{request.method} {request.path}: {_kind(request.path, settings)}"
    for step in trial.steps:
        yield ""
        yield from _sent(step) if isinstance(step, Sent) else _hook(step)
    if trial.said.status and trial.said.body != trial.answer.body:
        yield ""
        yield f"THE APP SAYS {trial.said.status}"
        yield from _body(trial.said)
    yield ""
    yield f"THE CLIENT GETS {trial.answer.status}"
    yield from (f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in trial.answer.headers)
    yield from _body(trial.answer)


def _kind(path: str, settings: Settings) -> str:
    try:
        endpoint = Routes(paths=settings.paths).find(path.partition("?")[0])
    except GateError as error:
        return error.message
    if endpoint is None:
        return "no LLM call, no hook sees it"
    return endpoint.call_type if endpoint.inspected else f"{endpoint.call_type}, no hook sees it"


def _hook(step: Step) -> Iterator[str]:
    calls = f", {step.calls} calls" if step.calls > 1 else ""
    yield f"{step.name}  {step.seconds * 1000:.2f} ms{calls}"
    yield from (f"  {note}" for note in step.notes or ["no change"])


def _sent(sent: Sent) -> Iterator[str]:
    yield f"THE APP GETS {sent.method} {sent.path}"
    yield from _text(sent.body)


def _body(answer: Answer) -> list[str]:
    streamed = any(name.lower() == b"content-type" and value.startswith(_STREAM) for name, value in answer.headers)
    return answer.body.decode("utf-8", "replace").rstrip("\n").split("\n") if streamed else _text(answer.body)


def _text(body: bytes) -> list[str]:
    """Return the lines of a body: JSON laid out, all else as it is."""
    with suppress(orjson.JSONDecodeError, TypeError):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    return body.decode("utf-8", "replace").split("\n") if body else []
