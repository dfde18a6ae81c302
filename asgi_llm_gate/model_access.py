"""Which models a caller may use: those that its `models` name, with ``*`` for any characters; without any, all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.errors import GateError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asgi_llm_gate.auth import UserAPIKeyAuth

# LiteLLM's word for all models.
_ALL = frozenset({"*", "all-proxy-models"})

# Where other gateways are told what to use in place of the model.
_INSTEAD = ("models", "fallbacks")


def check_access(
    caller: UserAPIKeyAuth, named: Iterable[Any], body: Mapping[str, Any], *, must_name: bool = True
) -> None:
    """Refuse a call to models that its caller may not use.

    Args:
        caller: Who calls.
        named: What stands where the call names its model; None where nothing does.
        body: The call's fields, in which other models may be named to fall back on.
        must_name: It runs a model, and one that names none would run who knows which.

    Raises:
        GateError: 403.
    """
    allowed = _allowed(caller)
    if not allowed:
        return
    models = [model for model in named if model is not None]
    if must_name and not models:
        raise _denied("This key may use certain models only, and nothing says which one this call would run")
    for model in (*models, *_instead(body)):
        if not isinstance(model, str) or not any(_fits(pattern, model) for pattern in allowed):
            raise _denied(f"This key may not use the model {quoted(model)}")


def is_limited(caller: UserAPIKeyAuth) -> bool:
    """Tell whether there are models that a caller may not use."""
    return bool(_allowed(caller))


def _allowed(caller: UserAPIKeyAuth) -> list[str]:
    """Return the models that a caller may use, or nothing for all."""
    models = getattr(caller, "models", None) or ()
    names = [models] if isinstance(models, str) else [str(model) for model in models]
    return [] if _ALL.intersection(names) else names


def _instead(body: Mapping[str, Any]) -> Iterator[Any]:
    for name in _INSTEAD:
        given = body.get(name)
        for entry in given if isinstance(given, list) else () if given is None else (given,):
            yield entry.get("model", entry) if isinstance(entry, dict) else entry


def _fits(pattern: str, model: str) -> bool:
    """Tell whether a model's name fits a pattern; in linear time, for it is the client who writes the name."""
    first, *others = pattern.split("*")
    if not others:
        return model == pattern
    *middle, last = others
    if not model.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        at = model.find(piece, at) + len(piece)
        if at < len(piece):
            return False
    return len(model) - len(last) >= at and model.endswith(last)


def _denied(message: str) -> GateError:
    return GateError(403, message, param="model", code="key_model_access_denied")
