"""LLM call hooks for any ASGI app: change, refuse, moderate and rewrite OpenAI-shaped calls in one line."""

from asgi_llm_gate.auth import UserAPIKeyAuth
from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.callhooks import CallHooks
from asgi_llm_gate.endpoints import get_formatted_prompt
from asgi_llm_gate.forwarder import Forwarder
from asgi_llm_gate.gate import LLMGate

__all__ = ["CallHooks", "DualCache", "Forwarder", "LLMGate", "UserAPIKeyAuth", "get_formatted_prompt"]

__version__ = "0.1.0"
