"""What of LiteLLM's configuration carries over to the gate, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.config_file import one_line
from asgi_llm_gate.coverage import table
from asgi_llm_gate.litellm_keys import instead_of, keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def report(content: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the lines of a table of a file's keys, those of `gate_settings` aside; none if it has no others.

    Args:
        content: The sections of a file that is right.
    """
    found = dict(keys(content))
    if found:
        yield ""
        yield from table(("LITELLM'S KEY", "SERVED", "INSTEAD"), (_row(*key) for key in found.items()))


def _row(place: str, served: bool) -> tuple[str, str, str]:
    return (one_line(place), "yes", "") if served else (one_line(place), "no", instead_of(place) or "-")
