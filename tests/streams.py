"""Streams to try the shapes on, and what OpenAI's official client makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import orjson

from asgi_llm_gate import sse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Chunk = dict[str, Any]

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


RECORDINGS = os.environ.get("LLM_GATE_RECORDINGS")


def exchanges(folder: str | Path) -> dict[str, Any]:
    """The recorded exchanges of a folder, by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("*.json"))}


def all_exchanges() -> dict[str, Any]:
    """Our own fixtures, and the recordings where there are some."""
    return exchanges(Path(__file__).parent / "fixtures") | (exchanges(RECORDINGS) if RECORDINGS else {})


def streams(call: str) -> dict[str, bytes]:
    """The bodies of the streams of one kind of call: of our own fixtures, and of recordings where there are some."""
    return {
        name: exchange["response"]["body"].encode()
        for name, exchange in all_exchanges().items()
        if exchange["call"] == call and "event-stream" in exchange["response"]["content_type"]
    }


def chunks_of(body: bytes) -> list[Chunk]:
    """The chunks of a stream."""
    decoder = sse.Decoder(10_000_000)
    found = map(sse.json_of, [*decoder.feed(body), *decoder.close()])
    return [chunk for chunk in found if chunk is not None]


def client_of(chunks: Iterable[Chunk], name: Callable[[Chunk], str | None] = lambda chunk: None) -> openai.OpenAI:
    """The official client, before a server that answers with these chunks."""
    body = b"".join(sse.encode(chunk, name(chunk)) for chunk in chunks)
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, content=body))
    return openai.OpenAI(
        base_url="http://test/v1", api_key="sk-x", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def helped_completion(chunks: Iterable[Chunk]) -> Any:
    """The chat completion that the client's helper puts together."""
    with (
        client_of(chunks) as client,
        client.chat.completions.stream(model="m", messages=MESSAGES) as stream,
    ):
        for _ in stream:
            pass
        return plain(stream.current_completion_snapshot)


def helped_response(chunks: Iterable[Chunk]) -> tuple[list[Chunk], Any]:
    """The events that the client's helper gives out, and the response at their end."""
    with (
        client_of(chunks, lambda chunk: chunk.get("type")) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        events = [plain(event) for event in stream]
    return events, events[-1]["response"]


def plain(model: Any) -> Any:
    """What a model of the client has, in plain dicts, without what it says nothing about."""
    return orjson.loads(model.to_json(exclude_none=False, warnings=False))
