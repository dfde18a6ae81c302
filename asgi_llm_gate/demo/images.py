"""The echo model's images: one plain colour, drawn from the prompt's hash."""

from __future__ import annotations

import base64
import hashlib
import struct
import time
import zlib
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.request import count, invalid, one_of

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

_SIDE = 64
_MAX_IMAGES = 10


def answer(data: Json) -> Json:
    """Return ``n`` PNG images of 64 by 64 pixels, as data URLs or as base64."""
    prompt = data.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt", "must be a text")
    form = one_of(data, "response_format", "url", "b64_json")
    image = base64.b64encode(_png(hashlib.sha256(prompt.encode()).digest()[:3])).decode()
    given = {"b64_json": image} if form == "b64_json" else {"url": f"data:image/png;base64,{image}"}
    images = [{**given, "revised_prompt": prompt}] * count(data, "n", 1, _MAX_IMAGES)
    return {"created": int(time.time()), "data": images}


def _png(colour: bytes) -> bytes:
    """Draw a square of one RGB colour (PNG specification, sections 5 and 11)."""
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + colour * _SIDE) * _SIDE)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True)))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
