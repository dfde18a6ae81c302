"""LLM call hooks for any ASGI app: change, refuse, moderate and rewrite OpenAI-shaped calls in one line."""

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.auth import UserAPIKeyAuth
from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.callhooks import CallHooks
from asgi_llm_gate.endpoints import get_formatted_prompt
from asgi_llm_gate.gate import LLMGate

if TYPE_CHECKING:
    from asgi_llm_gate.forwarder import Forwarder

__all__ = ["CallHooks", "DualCache", "Forwarder", "LLMGate", "UserAPIKeyAuth", "get_formatted_prompt"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the forwarder, and with it an HTTP client, when it is asked for."""
    if name != "Forwarder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asgi_llm_gate.forwarder import Forwarder

    return Forwarder
