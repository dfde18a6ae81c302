"""A form is refused with a `GateError`, or read the same however it comes, and written anew as it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.call import CallData
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.form_headers import form_boundary
from asgi_llm_gate.forms import FormParser

if TYPE_CHECKING:
    from asgi_llm_gate.uploads import Upload

MAX_BYTES = 100_000

SEEDS = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n',
    (
        b'--b\r\nContent-Disposition: form-data; name="k[]"\r\n\r\n1\r\n--b\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--b--'
    ),
)


def run(data: bytes) -> None:
    """Read a form whole and byte by byte, write it anew, and read that."""
    whole = _read(b"b", [data])
    if whole != _read(b"b", [data[at : at + 1] for at in range(len(data))]):
        raise AssertionError("the form is read otherwise in pieces")
    if isinstance(whole, int):
        if whole not in {400, 413}:
            raise AssertionError(whole)
        return
    parser = _parser(b"b")
    parser.feed(data)
    try:
        body = CallData.of_form(parser.close()).for_app()
        again = _read(form_boundary(body.content_type), [body.content()])
    except GateError:
        return  # what no `data` can be made of
    finally:
        parser.discard()
    if again != whole:
        raise AssertionError("the form written anew is another")


def _parser(boundary: bytes) -> FormParser:
    return FormParser(boundary, max_bytes=MAX_BYTES, max_text_bytes=MAX_BYTES)


def _read(boundary: bytes, chunks: list[bytes]) -> list[tuple[Any, ...]] | int:
    """Return a form's parts, or the status it is refused with."""
    parser = _parser(boundary)
    try:
        for chunk in chunks:
            parser.feed(chunk)
        return [(part.name, *_content(part.value)) for part in parser.close()]
    except GateError as error:
        return error.status_code
    finally:
        parser.discard()


def _content(value: str | Upload) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else (value.filename, value.content_type, value.file.read())
