"""Content encodings of a POST whose decoded body, where there is one, is `PLAIN`.

Rows: name; the content-encoding; the body; None if the gate lets it through, else its status and code; which
frameworks (Starlette, FastAPI with a dict or a model, Django) read some body with no gate before them: none of them
undoes a coding.
"""

from __future__ import annotations

import gzip
import zlib
from typing import NamedTuple

PLAIN = b'{"user":"u"}'

SFMD, NONE = "SFMD", ""


class Encoding(NamedTuple):
    name: str
    coding: str
    body: bytes
    verdict: tuple[int, str] | None
    bare: str


UNSUPPORTED = (415, "unsupported_content_encoding")
BROKEN = (400, "invalid_content_encoding")
INVALID = (400, "invalid_json")
LARGE = (413, "request_too_large")

BOMB = gzip.compress(b'{"a":"' + b"x" * 10_000_000 + b'"}')

ENCODINGS = [
    Encoding("gzip", "gzip", gzip.compress(PLAIN), None, NONE),
    Encoding("x-gzip", "x-gzip", gzip.compress(PLAIN), None, NONE),
    Encoding("gzip in capitals, among spaces", " GZIP ", gzip.compress(PLAIN), None, NONE),
    Encoding("deflate", "deflate", zlib.compress(PLAIN), None, NONE),
    Encoding("identity", "identity", PLAIN, None, SFMD),
    Encoding("no name", "", PLAIN, None, SFMD),
    Encoding("gzip that is not", "gzip", PLAIN, BROKEN, SFMD),
    Encoding("deflate that is not", "deflate", PLAIN, BROKEN, SFMD),
    Encoding("gzip that is deflate", "gzip", zlib.compress(PLAIN), BROKEN, NONE),
    Encoding("deflate that is gzip", "deflate", gzip.compress(PLAIN), BROKEN, NONE),
    Encoding("deflate without its frame", "deflate", zlib.compress(PLAIN)[2:-4], BROKEN, NONE),
    Encoding("cut", "gzip", gzip.compress(PLAIN)[:-1], BROKEN, NONE),
    Encoding("wrong checksum", "gzip", gzip.compress(PLAIN)[:-8] + bytes(8), BROKEN, NONE),
    Encoding("a tail", "gzip", gzip.compress(PLAIN) + b"x", BROKEN, NONE),
    Encoding("a second member", "gzip", gzip.compress(PLAIN) + gzip.compress(b" "), BROKEN, NONE),
    Encoding("twice, said once", "gzip", gzip.compress(gzip.compress(PLAIN)), INVALID, NONE),
    Encoding("a bomb", "gzip", BOMB, LARGE, NONE),
    Encoding("a bomb that deflates", "deflate", zlib.compress(bytes(10_000_001)), LARGE, NONE),
    Encoding("nothing", "gzip", b"", INVALID, NONE),
    Encoding("nothing, compressed", "gzip", gzip.compress(b""), INVALID, NONE),
    Encoding("brotli", "br", b"\x0b\x05\x80{}\x03", UNSUPPORTED, NONE),
    Encoding("brotli that is not", "br", PLAIN, UNSUPPORTED, SFMD),
    Encoding("zstd", "zstd", b"{}", UNSUPPORTED, SFMD),
    Encoding("compress", "compress", b"{}", UNSUPPORTED, SFMD),
    Encoding("two codings", "gzip, gzip", gzip.compress(gzip.compress(PLAIN)), UNSUPPORTED, NONE),
    Encoding("two codings, one of them none", "identity, gzip", gzip.compress(PLAIN), UNSUPPORTED, NONE),
    Encoding("an unknown one", "x\xff", PLAIN, UNSUPPORTED, SFMD),
]
