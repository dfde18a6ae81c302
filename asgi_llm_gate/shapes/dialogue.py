"""What a kind of WebSocket's events look like, for who stands between its two ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_llm_gate.shapes import Json, Stream

# Which of the responses on one socket.
Key = tuple[Any, ...]


class Dialogue(Protocol):
    """The functions that a module of such events offers."""

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
