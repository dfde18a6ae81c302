"""An upstream server that speaks OpenAI's API, as an ASGI app."""

from __future__ import annotations

from asgi_llm_gate.forwarder.app import Forwarder

__all__ = ["Forwarder"]
