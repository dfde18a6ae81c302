"""Look-ahead over the pieces of one text, so that a hook sees whole what a stream cuts in two."""

from __future__ import annotations

# The most characters of one text that are held for a hook that wants it whole.
MAX_WHOLE = 4_000_000


class TextTooLongError(ValueError):
    """A text that a hook wants whole is longer than may be held."""


class Window:
    """What one hook has let go of one text, and what it still holds back.

    The hook is called with all that is not yet released: what it returned for the held part, and the new piece behind
    it. What it returns stands in for all of that, so it must be idempotent, as masking is.

    Args:
        size: Characters held back; 0 for none.
    """

    __slots__ = ("_held", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = ""

    def take(self, piece: str) -> str:
        """Return what the hook is to be called with."""
        return self._held + piece

    def settle(self, text: str) -> str:
        """Take what the hook made of that, and return what may go out."""
        border = max(0, len(text) - self._size)
        self._held = text[border:]
        return text[:border]

    def flush(self) -> str:
        """Return what is held; nothing is, from then on."""
        held, self._held = self._held, ""
        return held


class WholeText:
    """What one hook waits for: a text to its end, held until then."""

    __slots__ = ("_held", "_size")

    def __init__(self) -> None:
        self._held: list[str] = []
        self._size = 0

    def hold(self, piece: str) -> None:
        """Take one more piece.

        Raises:
            TextTooLongError: It is one too many.
        """
        self._size += len(piece)
        if self._size > MAX_WHOLE:
            raise TextTooLongError(f"a text of more than {MAX_WHOLE} characters")
        self._held.append(piece)

    def flush(self) -> str:
        """Return the text; nothing is held from then on."""
        held = "".join(self._held)
        self._held.clear()
        return held
