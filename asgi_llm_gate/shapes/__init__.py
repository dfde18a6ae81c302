"""What each kind of endpoint's bodies look like: one module a wire shape, pure functions and small classes on dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asgi_llm_gate.record import Record

Json = dict[str, Any]

# Which of a stream's texts: the choice's or output's index first, then what tells its texts apart.
TextName = tuple[Any, ...]

# Which of the responses on one socket.
Key = tuple[Any, ...]

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

    def slots(self, chunk: Json) -> list[Slot]:
        """Return where pieces stand in a chunk, in order, none of them empty."""
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

    def is_repeatable(self, chunk: Json) -> bool:
        """Tell whether nothing is to be noted or mended in the next chunk if only its pieces differ from this one's."""
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


class Dialogue(Protocol):
    """The functions that each module of a WebSocket's events offers."""

    @property
    def CALL_TYPE(self) -> str:  # noqa: N802  # a constant of each module
        """The word that hooks are given."""
        ...

    @property
    def LITELLM_CALL_TYPE(self) -> str:  # noqa: N802  # likewise
        """LiteLLM's present word for the same."""
        ...

    @property
    def USER_IN_EVENTS(self) -> bool:  # noqa: N802  # likewise
        """The client's events say who the user is; if not, the connection's query must."""
        ...

    @property
    def MODELS(self) -> tuple[str, ...]:  # noqa: N802  # likewise
        """Where what hooks are given of an event may name a model, dotted for nested fields."""
        ...

    def is_asking(self, event: Json) -> bool:
        """Tell whether hooks are to look at an event of the client: all but those known to carry no text."""
        ...

    def starts_response(self, event: Json) -> bool:
        """Tell whether an event of the client asks for a response, with settings of its own."""
        ...

    def body(self, event: Json) -> Json:
        """Return what hooks are given of an event.

        Raises:
            GateError: 400, it could be read in two ways.
        """
        ...

    def with_body(self, event: Json, body: Json) -> Json:
        """Return an event with what hooks left of its body."""
        ...

    def error_event(self, error: Json, event: Json, status: int) -> Json:
        """Return the event that reports an error.

        Args:
            error: The envelope's fields.
            event: The client's event at fault; empty if there is none.
            status: The HTTP status of such an error.
        """
        ...

    def response_of(self, event: Json, known: Mapping[Key, Stream]) -> Key | None:
        """Return which response an event of the app belongs to, known or new; None if it is about none."""
        ...

    def begins(self, event: Json) -> bool:
        """Tell whether an event of the app opens its response."""
        ...

    def ends(self, event: Json, key: Key) -> bool:
        """Tell whether an event of the app is the last of its response."""
        ...

    def new_stream(self, key: Key) -> Stream:
        """Return the reader of one response's events."""
        ...

    def addressed(self, event: Json, key: Key) -> Json:
        """Return an event of the gate's own with what says which response it belongs to."""
        ...

    def cancel(self, key: Key) -> Json | None:
        """Return the event that asks the app to stop a response; None where the protocol has none."""
        ...
