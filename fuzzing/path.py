"""A path is refused with a 400, or whatever a router would find in it the gate has found too."""

from __future__ import annotations

import re

from asgi_llm_gate.endpoints import ENDPOINTS, Routes
from asgi_llm_gate.errors import GateError

ROUTES = Routes()

SEEDS = (b"/v1/chat/completions\n", b"/engines/a%2Fb/chat/completions/", b"//v1/./embeddings;x=1", b"/shop/files")

# As routers compile their routes: Starlette's `$` matches before a last newline, a parameter is any one segment.
_ROUTERS = [
    re.compile("^.*" + re.escape(row.suffix).replace(re.escape("{}"), "[^/]+") + "$", re.DOTALL)
    for row in ENDPOINTS
    if not row.general
]


def run(data: bytes) -> None:
    """Look up a path, decoded as servers decode them, at the root and below a root path."""
    path = data.decode("utf-8", "replace")
    half = path[: len(path) // 2]
    for root_path in ("", half, "/api"):
        _check(path, root_path)
    _check("/api" + path, "/api")


def _check(path: str, root_path: str) -> None:
    if _find(path, root_path) is None and any(router.match(path) for router in _ROUTERS):
        raise AssertionError("a router finds what the gate does not")


def _find(path: str, root_path: str) -> object:
    try:
        return ROUTES.find(path, root_path)
    except GateError as error:
        if error.status_code != 400:
            raise AssertionError(error.status_code) from error
        return error
