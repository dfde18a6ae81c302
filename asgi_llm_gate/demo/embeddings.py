"""The echo model's embeddings: a direction drawn from the text's hash, so that equal texts have equal vectors."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.request import count, inputs, model, one_of, usage

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

_DIMENSIONS = 8
_MAX_DIMENSIONS = 3072


def answer(data: Json) -> Json:
    """Return a vector of length 1 for each input, as numbers or as base64 of little-endian 32-bit floats."""
    texts = inputs(data, "input")
    dimensions = count(data, "dimensions", _DIMENSIONS, _MAX_DIMENSIONS)
    encoding = one_of(data, "encoding_format", "float", "base64")
    vectors = [_vector(text, dimensions) for text in texts]
    items = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if encoding == "base64" else vector}
        for index, vector in enumerate(vectors)
    ]
    used = usage("\n".join(texts))
    del used["completion_tokens"]
    return {"object": "list", "data": items, "model": model(data), "usage": used}


def _vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = [(value + 0.5) / 32768 for value in struct.unpack(f"<{dimensions}h", digest)]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
