"""An upstream server: its address, what it is sent, and the URL of a path on it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from asgi_llm_gate.errors import GateError

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.answer import Headers

# The longest first: each ends with the next.
_API_PREFIXES = ("/openai/v1", "/api/v1", "/v1")

# What may stand in a path as it is (RFC 3986, section 3.3).
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + '?%[]{}|^`<>"\\'

# Dot segments (with path parameters too), backslashes, control characters and lone surrogates.
_ODD = re.compile(r"(?:\A|/)\.\.?(?:[/;]|\Z)|[\x00-\x1f\\\x7f\ud800-\udfff]")

# Characters; client libraries refuse URLs beyond 65,536.
_MAX_TARGET = 32_000


@dataclass(frozen=True, slots=True)
class Base:
    """The URL that an upstream's paths stand under.

    Args:
        origin: ``scheme://host:port``.
        path: Empty, or with a slash in front and none behind.
    """

    origin: str
    path: str

    @classmethod
    def parse(cls, url: str) -> Base:
        """Read a base URL.

        Raises:
            ValueError: It is no absolute http(s) URL, or has a query or a fragment.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
            raise ValueError("must be an absolute URL with http:// or https://")
        if "?" in url or "#" in url:
            raise ValueError("must have no query and no fragment")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("has a port that is no port") from None
        return cls(f"{parts.scheme}://{parts.netloc}", quote(parts.path.rstrip("/"), safe=_PATH_SAFE + "%"))

    def url(self, path: str, query: bytes) -> str:
        """Make the URL of a path that a client asked for.

        An API prefix such as ``/v1`` is dropped from it where the base has a path of its own.

        Args:
            path: As `asked_path` gives it.
            query: As it stood in the URL.

        Raises:
            GateError: 414 for a URL that is too long.
        """
        rest = path[len(api_prefix(path)) :] if self.path else path
        target = quote(rest, safe=_PATH_SAFE)
        if query:
            target += "?" + quote(query, safe=_QUERY_SAFE)
        if len(target) > _MAX_TARGET:
            raise GateError(414, "The URL is too long", code="invalid_path")
        return f"{self.origin}{self.path}{target}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server that calls are forwarded to.

    Args:
        base: Where it is.
        headers: Set on every request to it; its credentials stand here.
        timeout: Seconds it may stay silent.
        keep_credentials: Whether the client's own credentials go on to it.
    """

    base: Base
    headers: Headers = field(repr=False)
    timeout: float
    keep_credentials: bool = False


def asked_path(scope: Scope) -> str:
    """Read the path that the client asked for, below where the app is mounted.

    Raises:
        GateError: 400 for a path that could lead away from an upstream's base.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    if (path and not path.startswith("/")) or path.startswith("//"):
        raise _invalid()
    # A server behind the upstream may unquote what it is sent once more.
    if _ODD.search(path) or ("%" in path and _ODD.search(unquote(path))):
        raise _invalid()
    return path


def api_prefix(path: str) -> str:
    """Name the API prefix that a path begins with, or the empty string."""
    return next((prefix for prefix in _API_PREFIXES if path == prefix or path.startswith(f"{prefix}/")), "")


def _invalid() -> GateError:
    return GateError(400, "The path of this request can't be forwarded", code="invalid_path")
