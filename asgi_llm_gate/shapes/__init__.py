"""What each kind of endpoint's bodies look like: one module a wire shape, pure functions and small classes on dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_llm_gate.record import Record

Json = dict[str, Any]

# Which of a stream's texts: the choice's or output's index first, then what tells its texts apart.
TextName = tuple[Any, ...]

Channel = Literal["text", "tool_calls", "refusal", "reasoning"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)


@dataclass(slots=True)
class Slot:
    """A place in a chunk where a piece of some text stands.

    Attributes:
        holder: The object that has it.
        key: Under which name.
        text: Which of the stream's texts it continues.
        channel: What kind of text that is.
        index: The choice it belongs to.
        choice: What carries `logprobs` beside it.
    """

    holder: Json
    key: str
    text: TextName
    channel: Channel
    index: int
    choice: Json

    @property
    def piece(self) -> str:
        """The piece that stands there."""
        piece: str = self.holder[self.key]
        return piece

    def put(self, piece: str) -> None:
        """Put another piece there; log probabilities, which spell the old one out, go."""
        self.holder[self.key] = piece
        logprobs = self.choice.get("logprobs")
        if logprobs:
            self.choice["logprobs"] = [] if isinstance(logprobs, list) else None


class Stream(Protocol):
    """One stream of a shape: finds the pieces in its chunks, and makes chunks that fit in."""

    def slots(self, chunk: Json) -> Iterator[Slot]:
        """Yield where pieces stand in a chunk, in order, none of them empty."""
        ...

    def finishing(self, chunk: Json) -> Iterable[TextName]:
        """Return the texts that get no more pieces after this chunk, by what their names begin with."""
        ...

    def is_preamble(self, chunk: Json) -> bool:
        """Tell whether a chunk only opens the stream: it says nothing yet, and may wait for the first that does."""
        ...

    def seen(self, chunk: Json) -> bool:
        """Take note of a chunk that goes to the client, and mend what in it must agree with those before it.

        Returns:
            True if there was something to mend.
        """
        ...

    def more(self, slot: Slot, text: str) -> Json:
        """Return a chunk that carries more of a slot's text."""
        ...

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield the chunks that say a last message, where it is not empty, and finish every open choice.

        Each is to be shown to `seen` before the next is taken.
        """
        ...

    def error_of(self, chunk: Json) -> Any:
        """Return the error with which the app ends its stream in this chunk; None, or something empty, for none."""
        ...

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the chunks that end the stream with an error, of which the envelope's fields are given; likewise."""
        ...

    def event_name(self, chunk: Json) -> str | None:
        """Return the name of the event that carries a chunk, or None if the protocol names none."""
        ...

    @property
    def ends_with_done(self) -> bool:
        """The protocol ends its streams with ``[DONE]``."""
        ...


class Assembly(Protocol):
    """Puts a stream together again, for the log."""

    def add(self, chunk: Json) -> None:
        """Take the next chunk."""
        ...

    def result(self) -> Json | None:
        """Return the response in its unstreamed form, or None where there was nothing."""
        ...


class Shape(Protocol):
    """The functions that each module of this package offers."""

    def prompt_text(self, data: Json) -> str:
        """Return all text of a request that the model reads."""
        ...

    def rejection(self, data: Json, message: str, *, id: str, created: int) -> Json | None:
        """Return a normal response that says the message, or None where the endpoint has no text to say it with."""
        ...

    def rejection_chunks(self, data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:
        """Return the same as the chunks of a stream."""
        ...

    def open_stream(self) -> Stream | None:
        """Return a stream's reader, or None if the endpoint's streams carry no text."""
        ...

    def open_assembly(self) -> Assembly | None:
        """Return what puts a stream together, or None if the endpoint's streams carry no text."""
        ...

    @property
    def Response(self) -> type[Record]:  # noqa: N802  # a class that each module defines
        """The record class of responses and chunks."""
        ...
