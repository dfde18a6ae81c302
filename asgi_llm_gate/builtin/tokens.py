"""What an answer cost, in tokens: as its `usage` says, or estimated from its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# A token of English text has about four characters, says OpenAI's documentation.
_CHARACTERS = 4

# Where the texts of answers and of chunks stand.
_TEXTS = frozenset(
    {
        *("content", "text", "delta", "refusal", "transcript", "arguments", "input", "partial_json"),
        *("reasoning", "reasoning_content", "thinking"),
    }
)


class Cost(NamedTuple):
    """A number of tokens, and whether it is an estimate."""

    tokens: int
    estimated: bool


class Spending:
    """What one call's answer shows of its cost, whole or chunk by chunk.

    Attributes:
        answered: There was something of an answer.
    """

    def __init__(self) -> None:
        self._usage: dict[str, int] = {}
        self._characters = 0
        self.answered = False

    def see(self, answer: Mapping[str, Any]) -> None:
        """Look at a whole answer."""
        self.answered = True
        self._read_usage(answer)
        if _total(self._usage) is None:
            self._characters += _characters(answer)

    def see_chunk(self, chunk: Mapping[str, Any]) -> None:
        """Look at one chunk of a stream."""
        self.answered = True
        for holder in (chunk, chunk.get("response"), chunk.get("message")):
            self._read_usage(holder)
        # Where events have types, those that are no delta say again what was said before.
        if "delta" in str(chunk.get("type", "delta")):
            self._characters += _characters(chunk)

    def _read_usage(self, holder: Any) -> None:
        usage = holder.get("usage") if isinstance(holder, Mapping) else None
        if isinstance(usage, Mapping):
            self._usage.update({name: count for name, count in usage.items() if _is_count(count)})

    def cost(self, prompt: Callable[[], str]) -> Cost:
        """Return the cost; where nothing was said about it, by the lengths of the prompt and of the answer."""
        if (total := _total(self._usage)) is not None:
            return Cost(total, estimated=False)
        lengths = (len(prompt()), self._characters)
        return Cost(sum(-(-length // _CHARACTERS) for length in lengths), estimated=True)


def asks_for_usage(data: dict[str, Any]) -> bool:
    """Have a stream of chat or text completions say its usage, in a last chunk; True if the client had not asked."""
    options = data.get("stream_options")
    if data.get("stream") is not True or not isinstance(options, dict | None):
        return False
    if options and options.get("include_usage") is True:
        return False
    data["stream_options"] = {**(options or {}), "include_usage": True}
    return True


def only_usage(chunk: Mapping[str, Any]) -> bool:
    """Tell whether a chunk is the one that says the usage and nothing else."""
    return bool(chunk.get("usage")) and not chunk.get("choices")


def _total(usage: Mapping[str, int]) -> int | None:
    parts = [
        usage[name]
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
        for name in names
        if name in usage
    ]
    return usage.get("total_tokens", sum(parts) if parts else None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _characters(value: Any, name: str = "") -> int:
    if isinstance(value, str):
        return len(value) if name in _TEXTS else 0
    if isinstance(value, Mapping):
        return sum(_characters(inner, key) for key, inner in value.items())
    if isinstance(value, list):
        return sum(_characters(inner, name) for inner in value if isinstance(inner, str | Mapping | list))
    return 0
