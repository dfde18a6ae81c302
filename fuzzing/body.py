"""A body is refused with a `GateError`, or read as every parser behind the gate will read it."""

from __future__ import annotations

import json

import orjson

from asgi_llm_gate.body import decode, decompress, parse
from asgi_llm_gate.call import CallData
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.head import DECODERS

MAX_VALUES = 2_000
MAX_BYTES = 100_000

SEEDS = (
    b'{"model":"m","messages":[{"role":"user","content":"\\u00e9 \\ud83d\\ude00"}],"stream":true}',
    b'{"user":"a","\\u0075ser":"b","seed":18446744073709551616,"t":[1e2,-0.0,5e-324]}',
    b'{"metadata":{"a":[[[{}]]]},"litellm_metadata":{"x":1}}',
)


def run(data: bytes) -> None:
    """Decode a body as it is, then as if it were compressed."""
    _read(data)
    for coding in DECODERS:
        try:
            plain = decompress(data, coding, MAX_BYTES)
        except (GateError, ValueError):
            continue
        if len(plain) > MAX_BYTES:
            raise AssertionError("decompressed beyond the limit")
        _read(plain)


def _read(body: bytes) -> None:
    try:
        data = decode(body, MAX_VALUES)
    except GateError as error:
        if error.status_code != 400:
            raise AssertionError(error.status_code) from error
        return
    if _count(data) > MAX_VALUES:
        raise AssertionError("more values than were counted")
    sent = CallData(data).for_app().content()
    if parse(sent) != data or orjson.dumps(parse(sent)) != sent:
        raise AssertionError("what goes on is not canonical")
    # Python's parser stands for the app's: 1 is neither 1.0 nor true.
    if json.dumps(json.loads(sent)) != json.dumps(data):
        raise AssertionError("an app would read something else")


def _count(data: object) -> int:
    total, left = 0, [data]
    while left:
        item = left.pop()
        total += 1
        left += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return total
