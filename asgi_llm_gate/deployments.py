"""Models named by the path: Azure's ``/openai/deployments/{model}/…``, and ``/engines/{model}/…``.

There the path decides what runs, whatever `model` the body has. So hooks find the path's in ``data["model"]``, and one
that changes it changes the path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from starlette.types import Scope

_DEPLOYMENT = re.compile(
    r"(?P<before>.*/(?:deployments|engines)/)(?P<model>[^/]+)(?P<after>/.*)", re.IGNORECASE | re.DOTALL
)

# What stands as itself in a path (RFC 3986 §3.3).
_SAFE = "/:@!$&'()*+,;=-._~"


def model_of(path: str) -> str | None:
    """Return the model that a path names, or None."""
    found = _DEPLOYMENT.fullmatch(path)
    return found["model"] if found else None


def with_model(scope: Scope, model: Any) -> Scope | None:
    """Return a scope whose path names another model; None where that can't be a segment of a path.

    Args:
        scope: One whose path names a model.
        model: What hooks left as `model`.
    """
    if not isinstance(model, str) or not re.fullmatch(r"(?!\.\.?$)[!-~]+", model) or set(model) & set("/\\;%#?"):
        return None
    found = _DEPLOYMENT.fullmatch(scope["path"])
    assert found is not None  # noqa: S101  # the caller knows
    path = f"{found['before']}{model}{found['after']}"
    raw = {"raw_path": quote(path, safe=_SAFE).encode()} if scope.get("raw_path") is not None else {}
    return {**scope, "path": path, **raw}
