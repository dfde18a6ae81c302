"""The limits that bind a call, what of them is used, and what a client is told of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from asgi_llm_gate import UserAPIKeyAuth

# Seconds, from the first request or the first tokens that count in it.
WINDOW = 60.0

Kind = Literal["slots", "requests", "tokens"]

# What a caller's limits are given as.
Given = Mapping[Kind, Any]

# How callers' attributes name each kind of limit.
_ATTRIBUTES: Mapping[Kind, str] = {"slots": "max_parallel_requests", "requests": "rpm_limit", "tokens": "tpm_limit"}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that binds a call.

    Attributes:
        kind: Of what: ``slots``, calls at work at one time; ``requests`` or ``tokens`` in a window.
        most: How many.
        whose: Who shares it, as the client reads it.
        key: The name under which what is used is counted. It tells nobody who it is.
    """

    kind: Kind
    most: int
    whose: str
    key: str


@dataclass(frozen=True, slots=True)
class Use:
    """What of a limit was used when a call asked for its part.

    Attributes:
        used: How much.
        left: Seconds until it counts from zero again; 0 where no window has begun.
    """

    used: int
    left: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call asks for: a part of each of its limits.

    Attributes:
        id: The call's, the same for no other.
        limits: The limits.
    """

    id: str
    limits: Sequence[Limit]

    def of(self, *kinds: Kind) -> list[Limit]:
        """Return the limits of some kinds."""
        return [limit for limit in self.limits if limit.kind in kinds]


class LimitReachedError(Exception):
    """A call over a limit: the gate answers with the status, type, code and headers."""

    status_code = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


def limits_of(caller: UserAPIKeyAuth, model: Any) -> tuple[Limit, ...]:
    """Return the limits of a caller's key, user and team, and of the key for a model.

    Raises:
        TypeError: A limit is no whole number.
    """
    key = caller.api_key
    named = f"key {caller.key_alias}" if caller.key_alias else "this key"
    return (
        *_limits(_attributes(caller, ""), "key", key, named),
        *_limits(_attributes(caller, "user_"), "user", caller.user_id, f"user {caller.user_id}"),
        *_limits(_attributes(caller, "team_"), "team", caller.team_id, f"team {caller.team_alias or caller.team_id}"),
        *_limits(_of_model(caller, model), "model", f"{key} {model}", f"model {model} with {named}"),
    )


def _attributes(caller: UserAPIKeyAuth, prefix: str) -> Given:
    """Return a caller's limits whose names begin with a prefix."""
    return {kind: getattr(caller, prefix + name, None) for kind, name in _ATTRIBUTES.items()}


def _of_model(caller: UserAPIKeyAuth, model: Any) -> Given:
    """Return what a key's metadata says of a model."""
    given: dict[Kind, Any] = {}
    if caller.metadata and isinstance(model, str):
        for kind, name in _ATTRIBUTES.items():
            table = caller.metadata.get(f"model_{name}")
            given[kind] = table.get(model) if isinstance(table, Mapping) else None
    return given


def _limits(given: Given, scope: str, owner: Any, whose: str) -> list[Limit]:
    found = [(kind, most) for kind, most in given.items() if most is not None]
    if not found:
        return []
    digest = hashlib.blake2b(f"{scope} {owner}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return [Limit(kind, _whole(kind, most, whose), whose, f"{kind}:{scope}:{digest}") for kind, most in found]


def _whole(kind: Kind, most: Any, whose: str) -> int:
    if not isinstance(most, int) or isinstance(most, bool):
        raise TypeError(f"{_ATTRIBUTES[kind]} of {whose}: expected a whole number, got {type(most).__name__}")
    return most


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands: its limits, and what of each was used when a call asked for its part."""

    limits: Sequence[Limit]
    uses: Sequence[Use]

    def refusal(self) -> LimitReachedError | None:
        """Return the error that names the limit with the longest wait of those that are reached; None if none is."""
        reached = [pair for pair in self._pairs() if pair[1].used >= pair[0].most]
        if not reached:
            return None
        limit, use = max(reached, key=lambda pair: _wait(*pair))
        wait = _wait(limit, use)
        headers = {"x-should-retry": "false"}
        if wait < math.inf:
            headers = {"x-should-retry": "true", "retry-after": str(math.ceil(wait))}
        return LimitReachedError(_message(limit, use, wait), headers)

    def headers(self) -> dict[str, str]:
        """Return OpenAI's headers about requests and tokens: of the limits of each, the one with the least left."""
        headers: dict[str, str] = {}
        for kind, taken in (("requests", 1), ("tokens", 0)):
            pairs = [pair for pair in self._pairs() if pair[0].kind == kind]
            if pairs:
                limit, use = min(pairs, key=lambda pair: (pair[0].most - pair[1].used, -pair[1].left))
                headers[f"x-ratelimit-limit-{kind}"] = str(limit.most)
                headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, limit.most - use.used - taken))
                headers[f"x-ratelimit-reset-{kind}"] = _duration(use.left)
        return headers

    def _pairs(self) -> list[tuple[Limit, Use]]:
        return list(zip(self.limits, self.uses, strict=True))


def _wait(limit: Limit, use: Use) -> float:
    """Return the seconds after which trying again may help."""
    if limit.most <= 0:
        return math.inf
    return 1.0 if limit.kind == "slots" else max(use.left, 1.0)


def _message(limit: Limit, use: Use, wait: float) -> str:
    name = _ATTRIBUTES[limit.kind]
    if limit.kind == "slots":
        said = f"Too many requests at once for {limit.whose}: {use.used} of {limit.most} are at work ({name})."
    else:
        said = f"Rate limit reached for {limit.whose}: {use.used} of {limit.most} {limit.kind} in a minute ({name})."
    return said if wait == math.inf else f"{said} Try again in {math.ceil(wait)} s."


def _duration(seconds: float) -> str:
    """Return a time as OpenAI's headers have it: ``6ms``, ``1.2s``."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds}ms" if 0 < milliseconds < 1000 else f"{milliseconds / 1000:g}s"
