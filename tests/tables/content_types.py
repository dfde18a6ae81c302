"""Content types of a POST whose body is JSON.

Rows: name; the values of its content-type headers; None if the gate lets it through, else its status and code; which
frameworks (Starlette, FastAPI, Django) read the body with no gate before them.
"""

from __future__ import annotations

from typing import NamedTuple

SFD, SD = "SFD", "SD"


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
    ContentType("JSON", ("application/json",), None, SFD),
    ContentType("capitals", ("APPLICATION/JSON",), None, SFD),
    ContentType("UTF-8", ("application/json; charset=utf-8",), None, SFD),
    ContentType("UTF-16", ("application/json; charset=utf-16",), None, SFD),
    ContentType("space before a parameter", ("application/json ;x=y",), None, SFD),
    ContentType("leading space", (" application/json",), None, SFD),
    ContentType("leading and trailing tabs", ("\tapplication/json\t",), None, SFD),
    ContentType("empty parameter", ("application/json;",), None, SFD),
    ContentType("+json", ("application/vnd.x.v1+json",), None, SFD),
    ContentType("+JSON", ("application/x+JSON",), None, SFD),
    ContentType("curl's form", (FORM,), None, SD),
    ContentType("a form with charset", (f"{FORM}; charset=utf-8",), None, SD),
    ContentType("vertical tab", ("application/json\x0b",), UNSUPPORTED, SFD),
    ContentType("no-break space", ("application/json\xa0",), UNSUPPORTED, SFD),
    ContentType("next line", ("\x85application/json",), UNSUPPORTED, SFD),
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
    ContentType("+json alone", ("application/+json",), UNSUPPORTED, SFD),
    ContentType("a slash too many", ("application/x/y+json",), UNSUPPORTED, SD),
    ContentType("JSON without a main type", ("json",), UNSUPPORTED, SD),
    ContentType("any", ("*/*",), UNSUPPORTED, SD),
    ContentType("rubbish", ("\xff\x00/",), UNSUPPORTED, SD),
    ContentType("quoted", ('"application/json"',), UNSUPPORTED, SD),
    ContentType("JSON, then text", ("application/json", "text/plain"), REPEATED, SFD),
    ContentType("text, then JSON", ("text/plain", "application/json"), REPEATED, SD),
    ContentType("JSON twice", ("application/json", "application/json"), REPEATED, SFD),
    ContentType("absent, then JSON", ("", "application/json"), REPEATED, SD),
]
