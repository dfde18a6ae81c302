"""The files of a form: the first megabyte in memory, the rest on disk."""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the files of one form may have in memory together, in bytes.
MAX_IN_MEMORY = 1_000_000

# The most bytes read at one time.
CHUNK = 65_536


class Upload:
    """One file of a form, as hooks find it in `data`; open until the call has ended.

    Attributes:
        filename: Its name, as the client gave it.
        content_type: Its media type, as the client gave it; None if it gave none.
        file: The file itself, for readers that do not await: binary and seekable.
    """

    def __init__(self, filename: str, content_type: str | None, file: IO[bytes]) -> None:
        self.filename = filename
        self.content_type = content_type
        self.file = file

    def __repr__(self) -> str:
        return f"Upload({self.filename!r}, {self.content_type!r})"

    @property
    def size(self) -> int:
        """How many bytes it has."""
        position = self.file.tell()
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(position)
        return size

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all that are left if `size` is negative; empty at the end."""
        return self.file.read(size)

    async def seek(self, offset: int) -> None:
        """Go on reading so many bytes from the beginning."""
        self.file.seek(offset)

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the first so many bytes; who reads the file meanwhile is not disturbed.

        Raises:
            RuntimeError: There are fewer.
        """
        offset = 0
        while offset < size:
            position = self.file.tell()
            self.file.seek(offset)
            chunk = self.file.read(min(CHUNK, size - offset))
            self.file.seek(position)
            if not chunk:
                raise RuntimeError(f"{self!r} was cut while it was sent on")
            offset += len(chunk)
            yield chunk


class Spool:
    """Where the files of one form are kept, one after the other."""

    def __init__(self) -> None:
        self._files: list[tempfile.SpooledTemporaryFile[bytes]] = []
        self._room = MAX_IN_MEMORY

    def create(self, filename: str, content_type: str | None) -> Upload:
        """Open the next file; what fits in memory of those before it stays there."""
        if self._files and self._files[-1].tell() <= self._room:
            self._room -= self._files[-1].tell()
        # A limit of 0 would mean none.
        file = tempfile.SpooledTemporaryFile(max_size=max(self._room, 1))  # noqa: SIM115  # `close` does
        self._files.append(file)
        return Upload(filename, content_type, file)

    def __len__(self) -> int:
        return len(self._files)

    def rewind(self) -> None:
        """Make all files ready to be read."""
        for file in self._files:
            file.seek(0)

    def close(self) -> None:
        """Close all files, and remove them from the disk."""
        for file in self._files:
            file.close()
