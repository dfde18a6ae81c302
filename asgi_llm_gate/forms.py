"""A form (``multipart/form-data``, RFC 7578) from bytes to parts; sans-I/O but for the files, which go to a spool."""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from asgi_llm_gate.errors import too_large
from asgi_llm_gate.form_headers import PartHead, header_text, invalid_form
from asgi_llm_gate.uploads import Spool, Upload

MAX_PARTS = 1_000
MAX_FILES = 50
MAX_HEADER_BYTES = 8_192

_LINE_ENDS = b"\r\n\r\n"

# The parser counts from the start of what it was last fed: a client can make nothing of that.
_PLACE = re.compile(r" at (?:index )?\d+| \(\d+\)")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Attributes:
        name: Its name on the wire.
        value: A field's text, or a file.
        content_type: The media type of a field that has one.
    """

    name: str
    value: str | Upload
    content_type: str | None

    @property
    def key(self) -> str:
        """The name in `data`: without the brackets that clients put behind the names of lists."""
        return self.name[:-2] if self.name[-2:] == "[]" and len(self.name) > 2 else self.name


class FormParser:
    """Takes the bytes of a form.

    The parser beneath skips what stands before the first boundary and after the last; here both are refused, for
    another parser may find a form there.

    Args:
        boundary: What stands between the parts.
        max_bytes: The most bytes of the whole.
        max_text_bytes: The most bytes of all fields that are no files.

    Attributes:
        parts: The parts read so far.
        spool: Where the files are, and others may be put that last as long.
    """

    def __init__(self, boundary: bytes, *, max_bytes: int, max_text_bytes: int) -> None:
        self.parts: list[Part] = []
        self._max_bytes = max_bytes
        self._max_text_bytes = max_text_bytes
        self.spool = Spool()
        self._delimiter = b"\r\n--" + boundary
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_ends,
                "on_end": self._form_ends,
            },
        )
        self._size = 0
        self._text_size = 0
        # What came before the bytes that are fed: the first boundary has no line before it.
        self._before = b"\r\n"
        self._start: bytes | None = b""
        self._ended = False
        self._rest = b""
        self._headers: dict[str, str] = {}
        self._header_size = 0
        self._field = bytearray()
        self._value = bytearray()
        self._head = PartHead("", None, None)
        self._text = bytearray()
        self._upload: Upload | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            GateError: 400, the form is malformed or ambiguous; 413, it is too large.
        """
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._start is not None:
            chunk = self._begin(self._start + chunk)
        if self._ended:
            self._end(self._rest + chunk)
        elif chunk:
            self._write(chunk)

    def close(self) -> list[Part]:
        """Return the parts: the form is complete.

        Raises:
            GateError: 400, it is not.
        """
        if not self._ended:
            raise invalid_form("The form ends before its closing boundary")
        self._end(self._rest, whole=True)
        self.spool.rewind()
        return self.parts

    def discard(self) -> None:
        """Close the files."""
        self.spool.close()

    def _begin(self, start: bytes) -> bytes:
        """Return the bytes, once the first boundary is there and nothing stands before it."""
        opening = self._delimiter[2:]
        if not start.startswith(opening[: len(start)]):
            raise invalid_form("The form does not begin with its boundary")
        if len(start) <= len(opening):
            self._start = start
            return b""
        if start[len(opening)] == ord("\n"):
            raise invalid_form("The lines of the form do not end with CRLF")
        self._start = None
        return start

    def _write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as exc:
            raise invalid_form(f"The form is malformed: {_PLACE.sub('', str(exc))}") from None
        window = len(self._delimiter) + 1
        if self._ended:
            known = self._before + chunk
            closing = self._delimiter + b"--"
            self._end(known[known.index(closing) + len(closing) :])
        self._before = chunk[-window:] if len(chunk) >= window else (self._before + chunk)[-window:]

    def _end(self, rest: bytes, *, whole: bool = False) -> None:
        """Refuse what follows the closing boundary, but for a line end or two: some clients write an empty line."""
        if not _LINE_ENDS.startswith(rest) or (whole and len(rest) % 2):
            raise invalid_form("Something follows the closing boundary of the form")
        self._rest = rest

    def _part_begins(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise invalid_form(f"The form has more than {MAX_PARTS} parts")
        self._headers = {}
        self._header_size = 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_size += size
        if self._header_size > MAX_HEADER_BYTES:
            raise invalid_form(f"The headers of a part have more than {MAX_HEADER_BYTES} bytes")

    def _header_ends(self) -> None:
        name = self._field.decode("ascii").lower()
        if name.startswith("-"):
            # Another parser may take it for a boundary.
            raise invalid_form("The form is malformed: a header begins with a hyphen")
        if name in self._headers:
            raise invalid_form(f"A part of the form has two headers {name}")
        self._headers[name] = header_text(bytes(self._value))
        self._field.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        self._head = head = PartHead.of(self._headers)
        if head.filename is not None:
            if len(self.spool) == MAX_FILES:
                raise invalid_form(f"The form has more than {MAX_FILES} files")
            self._upload = self.spool.create(head.filename, head.content_type)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is not None:
            self._upload.file.write(memoryview(data)[start:end])
            return
        self._text_size += end - start
        if self._text_size > self._max_text_bytes:
            raise too_large(self._max_text_bytes)
        self._text += data[start:end]

    def _part_ends(self) -> None:
        head = self._head
        if self._upload is not None:
            self.parts.append(Part(head.name, self._upload, None))
            self._upload = None
            return
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            raise invalid_form(f"The field {head.name!r} is not UTF-8", head.name) from None
        self.parts.append(Part(head.name, text, head.content_type))
        self._text.clear()

    def _form_ends(self) -> None:
        self._ended = True
