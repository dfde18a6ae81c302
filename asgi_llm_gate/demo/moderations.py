"""The echo model's moderations: a category is flagged when a text names it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.request import inputs
from asgi_llm_gate.shapes.common import joined

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)


def answer(data: Json) -> Json:
    """Return a result for each text, or one for all parts of an input of text and images."""
    given = data.get("input")
    if isinstance(given, list) and given and all(isinstance(part, dict) for part in given):
        texts = [joined(given)]
    else:
        texts = inputs(data, "input")
    # OpenAI's endpoint takes a call without a model.
    model = data.get("model") or "echo"
    return {"id": f"modr-{secrets.token_hex(12)}", "model": model, "results": [_result(text) for text in texts]}


def _result(text: str) -> Json:
    named = {category: category in text.lower() for category in _CATEGORIES}
    return {
        "flagged": any(named.values()),
        "categories": named,
        "category_scores": {category: float(flagged) for category, flagged in named.items()},
        "category_applied_input_types": {category: ["text"] for category in _CATEGORIES},
    }
