"""One request through a configuration's hooks, without a network, and what each of them made of it."""

from __future__ import annotations

from asgi_llm_gate.trial.request import RequestError, read_request
from asgi_llm_gate.trial.sending import run
from asgi_llm_gate.trial.text import report

__all__ = ["RequestError", "read_request", "report", "run"]
