"""Content types of a POST whose body is JSON.

Rows: name; the values of its content-type headers; None if the gate lets it through, else its status and code; which
frameworks (Starlette, FastAPI with a dict or a model, Django) read the body with no gate before them.
"""

from __future__ import annotations

from typing import NamedTuple

SFMD, SD = "SFMD", "SD"


class ContentType(NamedTuple):
    name: str
    values: tuple[str, ...]
    verdict: tuple[int, str] | None
    bare: str


UNSUPPORTED = (415, "unsupported_content_type")
REPEATED = (400, "repeated_header")

FORM = "application/x-www-form-urlencoded"

CONTENT_TYPES = [
    ContentType("absent", (), None, SD),
    ContentType("empty", ("",), None, SD),
    ContentType("JSON", ("application/json",), None, SFMD),
    ContentType("capitals", ("APPLICATION/JSON",), None, SFMD),
    ContentType("UTF-8", ("application/json; charset=utf-8",), None, SFMD),
    ContentType("UTF-16", ("application/json; charset=utf-16",), None, SFMD),
    ContentType("space before a parameter", ("application/json ;x=y",), None, SFMD),
    ContentType("leading space", (" application/json",), None, SFMD),
    ContentType("leading and trailing tabs", ("\tapplication/json\t",), None, SFMD),
    ContentType("empty parameter", ("application/json;",), None, SFMD),
    ContentType("+json", ("application/vnd.x.v1+json",), None, SFMD),
    ContentType("+JSON", ("application/x+JSON",), None, SFMD),
    ContentType("curl's form", (FORM,), None, SD),
    ContentType("a form with charset", (f"{FORM}; charset=utf-8",), None, SD),
    ContentType("vertical tab", ("application/json\x0b",), UNSUPPORTED, SFMD),
    ContentType("no-break space", ("application/json\xa0",), UNSUPPORTED, SFMD),
    ContentType("next line", ("\x85application/json",), UNSUPPORTED, SFMD),
    ContentType("two types in one", ("application/json, text/plain",), UNSUPPORTED, SD),
    ContentType("text", ("text/plain",), UNSUPPORTED, SD),
    ContentType("text/json", ("text/json",), UNSUPPORTED, SD),
    ContentType("text, JSON its parameter", ("text/plain; application/json",), UNSUPPORTED, SD),
    ContentType("HTML", ("text/html",), UNSUPPORTED, SD),
    ContentType("multipart", ("multipart/form-data; boundary=x",), UNSUPPORTED, SD),
    ContentType("bytes", ("application/octet-stream",), UNSUPPORTED, SD),
    ContentType("JSON lines", ("application/x-ndjson",), UNSUPPORTED, SD),
    ContentType("JSON sequence", ("application/json-seq",), UNSUPPORTED, SD),
    ContentType("JSON with comments", ("application/json5",), UNSUPPORTED, SD),
    ContentType("model+json", ("model/gltf+json",), UNSUPPORTED, SD),
    ContentType("+json alone", ("application/+json",), UNSUPPORTED, SFMD),
    ContentType("a slash too many", ("application/x/y+json",), UNSUPPORTED, SD),
    ContentType("JSON without a main type", ("json",), UNSUPPORTED, SD),
    ContentType("any", ("*/*",), UNSUPPORTED, SD),
    ContentType("rubbish", ("\xff\x00/",), UNSUPPORTED, SD),
    ContentType("quoted", ('"application/json"',), UNSUPPORTED, SD),
    ContentType("JSON, then text", ("application/json", "text/plain"), REPEATED, SFMD),
    ContentType("text, then JSON", ("text/plain", "application/json"), REPEATED, SD),
    ContentType("JSON twice", ("application/json", "application/json"), REPEATED, SFMD),
    ContentType("absent, then JSON", ("", "application/json"), REPEATED, SD),
]
