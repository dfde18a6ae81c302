"""The echo model's text completions."""

from __future__ import annotations

import secrets
import time
from itertools import zip_longest
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.request import count, inputs, model, tokens, usage
from asgi_llm_gate.shapes.common import MAX_N, wants_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json


def answer(data: Json) -> Json:
    """Return a text completion that repeats each prompt ``n`` times, a choice each."""
    texts = _texts(data)
    choices = [_choice(index, text, "stop") for index, text in enumerate(texts)]
    return {**_head(data), "choices": choices, "usage": _usage(data, texts)}


def chunks(data: Json) -> Iterator[Json]:
    """Yield the chunks of the same as a stream: the choices in turn, a token each, and usage if it was asked for."""
    texts = _texts(data)
    head = _head(data)
    unused: Json = {"usage": None} if wants_usage(data) else {}
    for turn in zip_longest(*map(tokens, texts)):
        for index, token in enumerate(turn):
            if token is not None:
                yield {**head, "choices": [_choice(index, token, None)], **unused}
    for index in range(len(texts)):
        yield {**head, "choices": [_choice(index, "", "stop")], **unused}
    if unused:
        yield {**head, "choices": [], "usage": _usage(data, texts)}


def _head(data: Json) -> Json:
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model(data),
        "system_fingerprint": "fp_echo",
    }


def _texts(data: Json) -> list[str]:
    prompts, n = inputs(data, "prompt"), count(data, "n", 1, MAX_N)
    return [prompt for prompt in prompts for _ in range(n)]


def _choice(index: int, text: str, finish_reason: str | None) -> Json:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _usage(data: Json, texts: list[str]) -> Json:
    return usage("\n".join(inputs(data, "prompt")), sum(len(tokens(text)) for text in texts))
