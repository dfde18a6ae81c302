"""The headers of a form and of its parts, read strictly: what two parsers might read differently is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_llm_gate.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = "multipart/form-data"

# A parameter: a token (RFC 9110 §5.6.2), and a token or a quoted string. Boundaries and names also come unquoted with
# characters that a token can't have.
_PARAMETER = re.compile(r""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"\\;,]+))[ \t]*""")

# RFC 2046 §5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VISIBLE = re.compile(r"[ -~]+")
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii"})

# Codings that change nothing (RFC 2045 §6.2); the clients of Ruby and Java name them.
_PLAIN_CODINGS = frozenset({"", "7bit", "8bit", "binary"})


def invalid_form(message: str, param: str | None = None) -> GateError:
    """Make the 400 that says what is wrong with a form."""
    return GateError(400, message, param=param, code="invalid_form")


def form_boundary(content_type: bytes) -> bytes:
    """Return the boundary that a form's content type names.

    Raises:
        GateError: 400, there is none, or it could be read in two ways.
    """
    _, parameters = _read(content_type.decode("latin-1"), "The content type of the form")
    if unknown := parameters.keys() - {"boundary", "charset"}:
        raise invalid_form(f"The content type of the form has a parameter {min(unknown)!r}")
    if parameters.get("charset", "utf-8").lower() not in _UTF_8:
        raise invalid_form("The form's charset must be utf-8")
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise invalid_form("The content type of the form has no valid boundary")
    return boundary.encode()


@dataclass(frozen=True, slots=True)
class PartHead:
    """What the headers of a part say.

    Attributes:
        name: The field's name.
        filename: The file's name; None if the part is no file.
        content_type: The part's media type, if it has one.
    """

    name: str
    filename: str | None
    content_type: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> PartHead:
        """Read a part's headers, their names in lower case; those that say nothing of a field are of no account.

        Raises:
            GateError: 400, they are not those of a form's part, or could be read in two ways.
        """
        disposition = headers.get("content-disposition")
        if disposition is None:
            raise invalid_form("A part of the form has no Content-Disposition")
        kind, parameters = _read(disposition, "The Content-Disposition of a part")
        if kind != "form-data":
            raise invalid_form(f"A part of the form has the disposition {kind!r}, not form-data")
        if unknown := parameters.keys() - {"name", "filename"}:
            raise invalid_form(f"The Content-Disposition of a part has a parameter {min(unknown)!r}")
        name = parameters.get("name")
        # Django strips names: ` user` would be `user` to it alone.
        if not name or "\\" in name or name != name.strip():
            raise invalid_form("A part of the form has no valid name")
        filename = parameters.get("filename")
        if filename == "":
            raise invalid_form(f"The file {name!r} has an empty filename", name)
        if headers.get("content-transfer-encoding", "").lower() not in _PLAIN_CODINGS:
            raise invalid_form(f"The part {name!r} has a Content-Transfer-Encoding", name)
        return cls(name, filename, _content_type(headers.get("content-type", ""), name, is_file=filename is not None))


def header_text(value: bytes) -> str:
    """Return a part header's value as text.

    Raises:
        GateError: 400, it is not UTF-8 or has a control character.
    """
    try:
        text = value.decode().strip(" \t")
    except UnicodeDecodeError:
        raise invalid_form("A header of a part is not UTF-8") from None
    if _CONTROL.search(text):
        raise invalid_form("A header of a part has a control character, or a line that does not end with CRLF")
    return text


def _content_type(text: str, name: str, *, is_file: bool) -> str | None:
    if not text:
        return None
    if not _VISIBLE.fullmatch(text):
        raise invalid_form(f"The part {name!r} has an invalid Content-Type", name)
    if text.lower().startswith("multipart/"):
        raise invalid_form(f"The part {name!r} is a multipart body itself", name)
    charset = re.search(r"charset\s*\*?\w*\*?\s*=\s*\"?([^\s\";]*)", text, re.IGNORECASE)
    if charset and not is_file and charset[1].lower() not in _UTF_8:
        raise invalid_form(f"The field {name!r} is not in utf-8", name)
    return text


def _unescaped(escape: re.Match[str]) -> str:
    return "%22" if escape[1] == '"' else escape[1]


def _read(header: str, what: str) -> tuple[str, dict[str, str]]:
    """Return a header's first word, in lower case, and its parameters, each of which it may have once."""
    kind, semicolon, rest = header.partition(";")
    rest = semicolon + rest
    parameters: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            raise invalid_form(f"{what} is malformed")
        name = match[1].lower()
        if name in parameters:
            raise invalid_form(f"{what} has two parameters {name!r}")
        if "*" in name:
            raise invalid_form(f"{what} has an extended parameter {name!r}")
        quoted, token = match[2], match[3]
        # A quote in a name has one form only, that of browsers.
        parameters[name] = token if quoted is None else re.sub(r'\\([\\"])', _unescaped, quoted)
        at = match.end()
    return kind.strip(" \t").lower(), parameters
