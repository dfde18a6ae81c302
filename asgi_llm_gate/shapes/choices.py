"""Streams of choices: what chat and text completions have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import index_of, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json, Slot, TextName


class ChoiceStream(ABC):
    """A stream whose chunks have `choices`, each with an `index`, until its `finish_reason` comes.

    Subclasses say where in a choice the pieces stand, and how a choice with a piece is made.

    Args:
        object: What the chunks call themselves.
    """

    ends_with_done = True

    def __init__(self, object: str) -> None:
        self._object = object
        self._head: Json | None = None
        self._open: dict[int, None] = {}
        self._finished: set[int] = set()

    def slots(self, chunk: Json) -> list[Slot]:
        """Return where pieces stand in a chunk, in order, none of them empty."""
        found: list[Slot] = []
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else [choices]:
            if isinstance(choice, dict):
                self.add_slots(choice, index_of(choice), found)
        return found

    @abstractmethod
    def add_slots(self, choice: Json, index: int, found: list[Slot]) -> None:
        """Add the places of one choice to those found."""

    @abstractmethod
    def piece_choice(self, slot: Slot, text: str) -> Json:
        """Return a choice that carries a piece of a slot's text."""

    @abstractmethod
    def message_choice(self, index: int, message: str) -> Json:
        """Return a choice that says a message."""

    @abstractmethod
    def first_choice(self, index: int) -> Json:
        """Return a choice that says nothing and goes on."""

    @abstractmethod
    def last_choice(self, index: int, finish_reason: str) -> Json:
        """Return a choice that says nothing and finishes."""

    def finishing(self, chunk: Json) -> list[TextName]:
        """Return the index of each choice that a chunk finishes."""
        return [(index_of(choice),) for choice in objects(chunk.get("choices")) if choice.get("finish_reason")]

    def is_preamble(self, chunk: Json) -> bool:
        """Tell whether a chunk has neither a piece nor an end nor anything but roles and filters' results."""
        return (
            "error" not in chunk
            and not chunk.get("usage")
            and not self.slots(chunk)
            and all(self.says_nothing(choice) for choice in objects(chunk.get("choices")))
        )

    def says_nothing(self, choice: Json) -> bool:
        """Tell whether a choice without a piece says nothing else either."""
        return not choice.get("finish_reason") and not choice.get("text")

    def seen(self, chunk: Json) -> bool:
        """Take note of a chunk's head and of which choices it opens and finishes."""
        mended = False
        if self._head is None and chunk.get("id"):
            self._head = {name: value for name, value in chunk.items() if name in _HEAD}
            self._head.setdefault("object", self._object)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else [choices]:
            if isinstance(choice, dict):
                index = index_of(choice)
                if choice.get("finish_reason"):
                    self._finished.add(index)
                self._open[index] = None
                mended = self.mend(choice, index) or mended
        return mended

    def is_repeatable(self, chunk: Json) -> bool:
        """Tell whether a chunk finishes nothing: what else there is to note is the same in the next."""
        return not self.finishing(chunk)

    def mend(self, choice: Json, index: int) -> bool:  # noqa: ARG002  # for shapes that have something to mend
        """Make a choice agree with those before it; True if it did not."""
        return False

    def event_name(self, chunk: Json) -> str | None:  # noqa: ARG002  # the shapes' signature
        """Return None: these events have no names."""
        return None

    def more(self, slot: Slot, text: str) -> Json:
        """Return a chunk that carries more of a slot's text."""
        return self._chunk(self.piece_choice(slot, text))

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield the message for every open choice, and a finish for each."""
        if not self._open:
            yield self._chunk(self.first_choice(0))
        unfinished = [index for index in self._open or {0: None} if index not in self._finished]
        for index in unfinished if message else ():
            yield self._chunk(self.message_choice(index, message))
        for index in unfinished:
            yield self._chunk(self.last_choice(index, finish_reason))

    def error_of(self, chunk: Json) -> Any:
        """Return what official clients raise: any chunk's `error`."""
        return chunk.get("error")

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the error in the envelope, as official clients raise it."""
        yield {"error": error}

    def _chunk(self, choice: Json) -> Json:
        head = self._head or {"id": "", "object": self._object, "created": 0, "model": ""}
        return {**head, "choices": [choice]}


_HEAD = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier"})
