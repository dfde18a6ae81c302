"""Server-sent events as OpenAI's endpoints send them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DONE = b"data: [DONE]\n\n"


def encode(chunk: Mapping[str, Any]) -> bytes:
    """Return one chunk as an event: compact JSON in a single data line."""
    return b"data: %b\n\n" % orjson.dumps(chunk)


def encode_stream(chunks: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the chunks of a whole stream, ended by ``[DONE]``."""
    return b"".join([*map(encode, chunks), DONE])
