"""``openai_moderations``: OpenAI's moderation endpoint, or another server's, beside the call."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from asgi_llm_gate import CallHooks, UserAPIKeyAuth, get_formatted_prompt
from asgi_llm_gate.builtin import options
from asgi_llm_gate.builtin.server import Server
from asgi_llm_gate.builtin.violation import Verdict, ViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import httpx

OPENAI = "https://api.openai.com/v1"

# A text is cut into pieces that have this many characters in common, so that what stands at a cut is seen whole.
OVERLAP = 200

# Pieces in a request; longer texts take several, one after the other.
_MOST_PIECES = 32


class MalformedResultError(Exception):
    """The server's answer has no result for each piece of the text."""


class OpenAIModerations(CallHooks):
    """Ask a moderation endpoint about the text of each call, beside the call, and refuse what it flags.

    Calls of the moderation endpoint itself, and calls without any text, are not judged.

    Args:
        api_base: The server.
        api_key: Sent to the server as the bearer token. For OpenAI's own server the environment variable
            ``OPENAI_API_KEY`` if it is not given; no other server is sent that.
        model: The moderation model.
        categories: Only these refuse a call; by default whatever the server flags.
        thresholds: Of these categories the score decides in place of the server's flag: 0 to 1, and from there on the
            call is refused.
        max_chars: The longest piece; a longer text is judged in pieces, all of it.
        timeout: How long the server may take for a call, in seconds.
        on_hook_error: What becomes of the call when there is no verdict: ``reject`` or ``allow``; the gate's own
            setting if None.
        client: The HTTP client to ask with, in place of one of its own; it stays the caller's to close.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    def __init__(
        self,
        *,
        api_base: str = OPENAI,
        api_key: str | None = None,
        model: str = "omni-moderation-latest",
        categories: Sequence[str] | None = None,
        thresholds: Mapping[str, float] | None = None,
        max_chars: int = 8_000,
        timeout: float = 10.0,
        on_hook_error: Literal["reject", "allow"] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        if api_base == OPENAI and api_key is None:
            api_key = os.environ.get("OPENAI_API_KEY")
            if not api_key:
                raise ValueError("api_key: expected a value; the environment variable OPENAI_API_KEY is not set")
        self._server = Server(api_base, api_key, client)
        self._model = options.text("model", model)
        self._categories = None if categories is None else options.names("categories", categories)
        self._thresholds = {
            name: options.number(f"thresholds.{name}", score, most=1)
            for name, score in options.named("thresholds", thresholds or {}).items()
        }
        self._max_chars = options.whole("max_chars", max_chars, least=2 * OVERLAP)
        self.hook_timeout = options.seconds("timeout", timeout)
        self.on_hook_error = options.policy("on_hook_error", on_hook_error)

    async def async_moderation_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002  # the hook's signature
        call_type: Any,
    ) -> None:
        """Judge a call.

        Raises:
            ViolationError: It is flagged.
            ServerError: The server has no answer.
            MalformedResultError: Its answer is no result.
        """
        if call_type == "moderation":
            return
        pieces = list(_pieces(get_formatted_prompt(data, call_type), self._max_chars))
        for start in range(0, len(pieces), _MOST_PIECES):
            asked = pieces[start : start + _MOST_PIECES]
            answer = await self._server.post("/moderations", {"model": self._model, "input": asked})
            for result in _results(answer, len(asked)):
                self._judge(result)

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._server.aclose()

    def _judge(self, result: Mapping[str, Any]) -> None:
        """Raise if a result refuses the call."""
        flags, scores = result["categories"], result["category_scores"]
        looked_at = [*flags, *(name for name in self._thresholds if name not in flags)]
        if self._categories is not None:
            looked_at = [name for name in looked_at if name in self._categories]
        found = tuple(name for name in looked_at if self._is_violated(name, flags, scores))
        unnamed = result["flagged"] and not any(flags.values())
        if found or unnamed:
            verdict = Verdict(found, {name: scores[name] for name in found if name in scores})
            raise ViolationError(verdict, ", ".join(found))

    def _is_violated(self, name: str, flags: Mapping[str, bool], scores: Mapping[str, float]) -> bool:
        if name not in self._thresholds:
            return bool(flags[name])
        if name not in scores:
            raise MalformedResultError(f"the server's answer has no score of {name}")
        return scores[name] >= self._thresholds[name]


def _pieces(text: str, most: int) -> Iterator[str]:
    """Yield a text in pieces of at most so many characters, each of which begins with the end of the one before."""
    start = 0
    while start < len(text):
        yield text[start : start + most]
        start = start + most - OVERLAP if start + most < len(text) else len(text)


def _results(answer: Any, count: int) -> list[Mapping[str, Any]]:
    """Return the results of a number of pieces, each with `flagged`, `categories` and `category_scores`."""
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != count:
        raise MalformedResultError("the server's answer has no result for each piece of the text")
    return [_result(result) for result in results]


def _result(result: Any) -> Mapping[str, Any]:
    given = result if isinstance(result, dict) else {}
    flagged, flags, scores = (given.get(name) for name in ("flagged", "categories", "category_scores"))
    if not isinstance(flagged, bool) or not _holds(flags, bool) or not _holds(scores or {}, int | float):
        raise MalformedResultError("the server's answer holds what is no result of a moderation")
    return {"flagged": flagged, "categories": flags, "category_scores": _given(scores or {})}


def _holds(values: Any, kind: Any) -> bool:
    """Tell whether values are of a kind; of a category that a model does not know the value may be null."""
    return isinstance(values, dict) and all(isinstance(value, kind) for value in _given(values).values())


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
