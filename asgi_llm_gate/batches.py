"""Files of calls (OpenAI's Batch API): every line is read as the call it is, and written anew as the hooks leave it.

A line is ``{"custom_id", "method", "url", "body"}``; the file goes to ``/files``, and ``/batches`` names it by its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from anyio.lowlevel import checkpoint

from asgi_llm_gate.body import decode
from asgi_llm_gate.errors import GateError, Rejection, intended, refused, too_large
from asgi_llm_gate.hooks import HookFailedError
from asgi_llm_gate.model_access import is_limited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asgi_llm_gate.auth import UserAPIKeyAuth
    from asgi_llm_gate.cache import DualCache
    from asgi_llm_gate.endpoints import Endpoint, Routes
    from asgi_llm_gate.shapes import Json
    from asgi_llm_gate.uploads import Upload

# Seconds for which a file that was looked into is known; OpenAI keeps a batch's file for 30 days.
REMEMBERED = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file.

    Attributes:
        line: The whole line, decoded.
        endpoint: The endpoint that its `url` names.
        url: That path.
        body: The call's body, as JSON.
    """

    line: Json
    endpoint: Endpoint
    url: str
    body: bytes

    def written(self) -> bytes:
        """Return the line as JSON, without a line end."""
        return orjson.dumps({**self.line, "url": self.url, "body": orjson.Fragment(self.body)})


def is_batch(data: Mapping[str, Any]) -> bool:
    """Tell whether a file holds calls of its own, by the purpose it is given."""
    purpose = data.get("purpose")
    return isinstance(purpose, str) and purpose.strip().lower() == "batch"


def read_row(line: bytes, routes: Routes, max_values: int) -> Row:
    """Read one line.

    Raises:
        GateError: 400, it is no call; 403, it is one that no hook looks into.
    """
    row = decode(line, max_values)
    url, body = row.get("url"), row.get("body")
    if row.get("method") != "POST" or not isinstance(url, str) or not isinstance(body, dict):
        raise GateError(400, "expected an object with the method POST, a url and a body", code="invalid_batch")
    endpoint = routes.find(url)
    if endpoint is None or not endpoint.inspected or not endpoint.takes_json or endpoint.carries_calls:
        raise GateError(403, "no hook looks into calls to its url", param="url", code="endpoint_not_inspected")
    return Row(row, endpoint, url, orjson.dumps(body))


async def rewrite(
    upload: Upload, new: Upload, judge: Callable[[bytes], Awaitable[Row]], max_row_bytes: int
) -> frozenset[str]:
    """Write a file anew, each row as it was judged.

    Args:
        upload: The file.
        new: Where to write it.
        judge: Reads a line, has the hooks look at it, and returns it as they leave it.
        max_row_bytes: The most bytes that a line may have.

    Returns:
        The urls of its rows.

    Raises:
        GateError: A line is wrong or refused; the message begins with its number.
    """
    urls = set()
    upload.file.seek(0)
    for number, line in enumerate(iter(partial(upload.file.readline, max_row_bytes + 1), b""), 1):
        if line.strip():
            try:
                row = await _judged(line, judge, max_row_bytes)
            except Exception as exc:
                raise _at_line(number, exc) from exc
            urls.add(row.url)
            new.file.write(row.written() + (b"\n" if line.endswith(b"\n") else b""))
            # Other calls have their turn, however little the hooks wait.
            await checkpoint()
    new.file.seek(0)
    return frozenset(urls)


async def _judged(line: bytes, judge: Callable[[bytes], Awaitable[Row]], max_bytes: int) -> Row:
    if len(line) > max_bytes:
        raise too_large(max_bytes)
    return await judge(line)


def _at_line(number: int, exc: Exception) -> Exception:
    """Return the error with the number of the line that it is about; a crash as it is."""
    error = refused(exc.message) if isinstance(exc, Rejection) else intended(exc)
    if error is None or isinstance(exc, HookFailedError):
        return exc
    message = f"Line {number}: {error.message}"
    told = {"type": error.type, "param": error.param, "code": error.code}
    return GateError(error.status_code, message, headers=error.headers, **told)


async def remember(cache: DualCache, response: Any, urls: frozenset[str], caller: UserAPIKeyAuth) -> None:
    """Remember a file that was looked into, by the id that its upload was answered with, and whose it is."""
    name = response.get("id")
    if isinstance(name, str) and name:
        await cache.async_set_cache(_key(name), {"urls": sorted(urls), "of": caller.api_key}, ttl=REMEMBERED)


async def check_batch(cache: DualCache, data: Mapping[str, Any], caller: UserAPIKeyAuth) -> None:
    """Let a batch pass whose file was looked into, and holds calls to the batch's own endpoint alone.

    The models in a file are those that its own key may use: another key that may not use all needs a file of its own.

    Raises:
        GateError: 403, it was not, or is another key's; 400, it holds others.
    """
    name = data.get("input_file_id")
    file = await cache.async_get_cache(_key(name)) if isinstance(name, str) else None
    if not isinstance(file, dict):
        message = "This gate does not let the batch through, because no hook has seen what is in its file"
        raise GateError(403, message, param="input_file_id", code="endpoint_not_inspected")
    if is_limited(caller) and (caller.api_key is None or file.get("of") != caller.api_key):
        message = "This key may use certain models only, and another key has uploaded the batch's file"
        raise GateError(403, message, param="input_file_id", code="key_model_access_denied")
    urls: list[str] = file["urls"]
    if any(url != data.get("endpoint") for url in urls):
        raise GateError(400, "The batch's file has calls to another endpoint", param="endpoint", code="invalid_batch")


def _key(file_id: str) -> str:
    return f"asgi_llm_gate:batch_file:{file_id}"
