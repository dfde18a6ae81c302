"""Which upstream serves which model: LiteLLM's ``model_list``, checked and read."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.forwarder.headers import bearer, encode
from asgi_llm_gate.forwarder.upstream import Base, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asgi_llm_gate.answer import Headers

_DEFAULT_BASE = "https://api.openai.com/v1"
_OPENAI = "openai/"

# Characters of a model's name that patterns are tried on: matching several stars costs more than linear time.
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Deployment:
    """One entry's upstream, and the name under which it knows the model."""

    upstream: Upstream
    model: str

    def named(self, asked: str, groups: Sequence[str]) -> Deployment:
        """Fill the stars of the upstream's model name with what those of the pattern stood for."""
        stars = self.model.count("*")
        if not stars:
            return self
        if self.model == "*" and len(groups) != 1:
            return Deployment(self.upstream, asked)
        pieces = self.model.split("*")
        filled = "".join(piece + group for piece, group in zip(pieces[:-1], groups, strict=False))
        return Deployment(self.upstream, filled + pieces[-1])


class Routes:
    """The upstreams of a ``model_list``.

    Args:
        model_list: Entries ``{"model_name": …, "litellm_params": {"model", "api_base", "api_key",
            "extra_headers", "timeout"}}``. Entries of one name share the load in turn.
        timeout: Seconds an upstream may stay silent whose entry has no ``timeout``.
        headers: Set on every request, below an entry's ``extra_headers``.
        environ: Where ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` stand, for entries without an ``api_base``.

    Raises:
        ValueError: An entry is wrong; the message is one line that names it.
    """

    def __init__(
        self,
        model_list: Sequence[Mapping[str, Any]],
        *,
        timeout: float,
        headers: Mapping[bytes, bytes],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        for problem in check(model_list, environ):
            raise ValueError(problem)
        groups: dict[str, list[Deployment]] = {}
        for entry in model_list:
            groups.setdefault(entry["model_name"], []).append(_deployment(entry, timeout, headers, environ))
        turns = {name: itertools.cycle(deployments) for name, deployments in groups.items()}
        self.names = tuple(name for name in groups if "*" not in name)
        self._exact = {name: turns[name] for name in self.names}
        patterns = sorted((name for name in groups if "*" in name), key=len, reverse=True)
        self._patterns = [(_compiled(pattern), turns[pattern]) for pattern in patterns]
        upstreams = [deployment.upstream for group in groups.values() for deployment in group]
        places = {(upstream.base, upstream.headers) for upstream in upstreams}
        self.only = upstreams[0] if len(places) == 1 else None

    def pick(self, model: str) -> Deployment | None:
        """Find the deployment whose turn it is to serve a model; an exact name goes before any pattern.

        Patterns are tried on the model as it is, then as one of OpenAI's: ``openai/*`` stands for ``gpt-4o`` too.
        """
        if model in self._exact:
            return next(self._exact[model]).named(model, ())
        if len(model) > _MAX_NAME:
            return None
        for name in (model, f"{_OPENAI}{model}"):
            for pattern, turn in self._patterns:
                if match := pattern.fullmatch(name):
                    return next(turn).named(model, match.groups())
        return None


def check(model_list: Any, environ: Mapping[str, str] = os.environ) -> list[str]:
    """List what is wrong with a ``model_list``, a line for each mistake that begins with its place."""
    if not isinstance(model_list, Sequence) or isinstance(model_list, str):
        return ["model_list: must be a list of entries"]
    return [
        f"model_list[{index}]{problem}"
        for index, entry in enumerate(model_list)
        for problem in _entry_problems(entry, environ)
    ]


def _entry_problems(entry: Any, environ: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield ": must be a mapping with model_name and litellm_params"
        return
    name = entry.get("model_name")
    if not isinstance(name, str) or not name:
        yield ".model_name: must be the name that clients ask for"
    params = entry.get("litellm_params")
    if not isinstance(params, Mapping):
        yield ".litellm_params: must be a mapping with at least a model"
        return
    yield from (f".litellm_params.{problem}" for problem in _model_problems(name, params))
    yield from (f".litellm_params.{problem}" for problem in _param_problems(params, environ))


def _model_problems(name: Any, params: Mapping[str, Any]) -> Iterator[str]:
    model = params.get("model")
    if not isinstance(model, str) or not model.removeprefix(_OPENAI):
        yield "model: must be the upstream's name of the model"
        return
    provider, slash, _ = model.partition("/")
    if slash and f"{provider}/" != _OPENAI and not params.get("api_base"):
        yield f"model: {provider}/ is not OpenAI; give the api_base of a server that speaks OpenAI's API"
    own = model.removeprefix(_OPENAI)
    if isinstance(name, str) and own != "*" and own.count("*") > name.count("*"):
        yield "model: has more * than model_name"


def _param_problems(params: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    readers: dict[str, tuple[Callable[[Any], object], Any]] = {
        "api_base": (_base, params.get("api_base") or _default_base(environ)),
        "api_key": (_bearer, _api_key(params, environ)),
        "extra_headers": (_headers, params.get("extra_headers") or {}),
        "timeout": (_seconds, params.get("timeout")),
    }
    for key, (read, value) in readers.items():
        try:
            read(value)
        except ValueError as exc:
            yield f"{key}: {exc}"


def _deployment(
    entry: Mapping[str, Any], timeout: float, headers: Mapping[bytes, bytes], environ: Mapping[str, str]
) -> Deployment:
    params = entry["litellm_params"]
    api_key = _api_key(params, environ)
    own = dict([_bearer(api_key)] if api_key else [])
    own |= dict(headers) | dict(_headers(params.get("extra_headers") or {}))
    base = _base(params.get("api_base") or _default_base(environ))
    upstream = Upstream(base, tuple(own.items()), _seconds(params.get("timeout")) or timeout)
    return Deployment(upstream, params["model"].removeprefix(_OPENAI))


def _default_base(environ: Mapping[str, str]) -> str:
    return environ.get("OPENAI_BASE_URL") or _DEFAULT_BASE


def _api_key(params: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    """Return an entry's key. The environment's is for OpenAI: no other server is to see it."""
    return params.get("api_key") or ("" if params.get("api_base") else environ.get("OPENAI_API_KEY", ""))


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _base(value: Any) -> Base:
    return Base.parse(_text(value))


def _bearer(value: Any) -> tuple[bytes, bytes]:
    return bearer(_text(value))


def _headers(value: Any) -> Headers:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a mapping of names to values")
    return encode(value)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise ValueError("must be a number of seconds above 0")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value
