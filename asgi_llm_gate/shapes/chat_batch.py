"""vLLM's batches of chats: ``POST /v1/chat/completions/batch``, whose `messages` are a list of conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.shapes import chat
from asgi_llm_gate.shapes.chat import Response
from asgi_llm_gate.shapes.common import lines
from asgi_llm_gate.shapes.plain import open_assembly, open_stream, rejection, rejection_chunks

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]


def prompt_text(data: Json) -> str:
    """Return the text of each conversation, one after the other, and that of the fields they share."""
    given = data.get("messages")
    conversations = given if isinstance(given, list) and all(isinstance(item, list) for item in given) else [given]
    texts = (chat.prompt_text({"messages": messages}) for messages in conversations)
    return lines(iter((*texts, chat.prompt_text({**data, "messages": None}))))
