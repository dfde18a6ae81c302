"""What a configuration covers: which hooks run on which calls, and which calls no hook looks into."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from asgi_llm_gate.endpoints import ENDPOINTS, INSPECT, PASS, WEBSOCKETS, Endpoint, by_call_type
from asgi_llm_gate.hooks import overrides
from asgi_llm_gate.keys import has_limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from asgi_llm_gate.config import Settings

_TITLES: Mapping[str, str] = {
    "async_pre_call_hook": "BEFORE",
    "async_moderation_hook": "BESIDE",
    "async_post_call_success_hook": "AFTER (UNSTREAMED)",
    "async_post_call_streaming_iterator_hook": "STREAM'S CHUNKS",
    "async_post_call_streaming_hook": "STREAM'S TEXT",
    "async_post_call_failure_hook": "ON FAILURE",
}
_NOT_OF_SOCKETS = ("async_post_call_success_hook", "async_post_call_streaming_iterator_hook")
_OF_STREAMS = ("async_post_call_streaming_iterator_hook", "async_post_call_streaming_hook")

_MODERATION = {
    "hold": "nothing is sent to the client before these hooks' verdict.",
    "cut": "a stream flows before these hooks' verdict, and a bad one ends it.",
}

_AWAY = {
    "allow": "while it is away, each process goes on with what it knows.",
    "reject": "while it is away, calls that need it are refused.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What becomes of the calls of one type.

    Attributes:
        call_type: The type; empty for an app's own paths that are no LLM calls.
        paths: How the paths of its calls end.
        policy: ``inspect``, ``pass`` or ``deny``.
        hooks: For each stage, the callbacks that run, in order.
        user: The fields that say who the user is, one of which a call must carry; none if it need not.
        forwards_user: The app gets these fields.
    """

    call_type: str
    paths: tuple[str, ...]
    policy: str
    hooks: Mapping[str, tuple[str, ...]]
    user: tuple[str, ...] = ()
    forwards_user: bool = True


def rows(settings: Settings) -> list[Row]:
    """Return a row for each type of calls, in the order of the table of endpoints."""
    hooks = {
        method: tuple(type(callback).__name__ for callback in settings.callbacks if overrides(callback, method))
        for method in _TITLES
    }
    endpoints = [*ENDPOINTS, *WEBSOCKETS]
    kinds = groupby(endpoints, lambda row: (row.call_type, row.inspected, row.dialogue))
    known = [_row(list(group), settings, hooks) for _, group in kinds]
    own = tuple(path for path, call_type in settings.paths.items() if call_type == PASS)
    return [*known, Row("", own, PASS, {})] if own else known


def _row(endpoints: Sequence[Endpoint], settings: Settings, hooks: Mapping[str, tuple[str, ...]]) -> Row:
    first = endpoints[0]
    call_type = first.call_type
    own = [path for path, named in settings.paths.items() if named != PASS and by_call_type(named) == first]
    kind = " (WebSocket)" if first.dialogue is not None else ""
    paths = (*(f"{endpoint.suffix}{kind}" for endpoint in endpoints), *own)
    policy = first.policy(settings.policies)
    if policy != INSPECT:
        return Row(call_type, paths, policy, {})
    user = (first.user_params or settings.user_params) if settings.enforce_user_param else ()
    if first.dialogue is not None:
        hooks = {**hooks, **dict.fromkeys(_NOT_OF_SOCKETS, ())}
    elif first.shape.open_stream() is None:
        hooks = {**hooks, **dict.fromkeys(_OF_STREAMS, ())}
    return Row(call_type, paths, INSPECT, hooks, user, first.has_user or settings.forward_user == "always")


def gaps(settings: Settings) -> list[str]:
    """Return what hooks of a configuration would not see of what they guard, a sentence each."""
    found = rows(settings)
    guards = [name for method in ("async_pre_call_hook", "async_moderation_hook") for name in found[0].hooks[method]]
    passed = [row.call_type for row in found if row.policy == PASS and row.call_type]
    unseen = [f"{', '.join(passed)} calls pass without a look by {guards[0]}"] if guards and passed else []
    blind = [type(callback).__name__ for callback in settings.callbacks if _sees_no_streams(callback)]
    neither = " nor ".join(_OF_STREAMS)
    blind = [f"{name} looks into answers but not into streams: it has neither {neither}" for name in blind]
    return unseen + blind + uncounted(settings)


def uncounted(settings: Settings) -> list[str]:
    """Return a sentence if there are limits that no callback says it counts (``shared_state``), else nothing."""
    if any(getattr(callback, "shared_state", False) for callback in settings.callbacks):
        return []
    holders = {
        "keys": settings.keys,
        "users": settings.users.values(),
        "teams": settings.teams.values(),
    }
    found = [name for name, limits in holders.items() if any(map(has_limits, limits))]
    what = " and ".join(found)
    return [f"the limits of {what} hold nobody back: callbacks has no parallel_request_limiter"] if found else []


def _sees_no_streams(callback: object) -> bool:
    looks = overrides(callback, "async_post_call_success_hook")
    return looks and not any(overrides(callback, method) for method in _OF_STREAMS)


def report(settings: Settings) -> str:
    """Return the rows as text: a table of the calls that hooks look into, and one of those that none does."""
    found = rows(settings)
    inspected = [row for row in found if row.policy == INSPECT]
    unseen = [row for row in found if row.policy != INSPECT]
    lines = [
        *table(("CALL", "PATH", *_TITLES.values(), "REQUIRED USER"), map(_inspected, inspected)),
        "",
        *table(("NOT INSPECTED", "POLICY", "PATH"), map(_unseen, unseen)),
        "",
        *_notes(settings),
    ]
    return "\n".join(lines)


def _inspected(row: Row) -> tuple[str, ...]:
    user = " or ".join(row.user) or "-"
    if row.user and not row.forwards_user:
        user += " (not forwarded)"
    stages = (", ".join(row.hooks[method]) or "-" for method in _TITLES)
    return row.call_type, ", ".join(row.paths), *stages, user


def _unseen(row: Row) -> tuple[str, ...]:
    return row.call_type or "-", row.policy, ", ".join(row.paths)


def _notes(settings: Settings) -> Iterator[str]:
    yield from _who_may_call(settings)
    if any(overrides(callback, "async_moderation_hook") for callback in settings.callbacks):
        yield f"Beside the call: {_MODERATION[settings.moderation_mode]}"
        yield "On a WebSocket they run before an event goes on to the app."
    if settings.enforced_params:
        yield f"Every inspected call must carry {', '.join(settings.enforced_params)}."
    if settings.cache is not None and settings.cache.redis_cache is not None:
        yield f"State is shared in {settings.cache.redis_cache.store.address}; {_AWAY[settings.cache.on_store_error]}"
    if settings.strict:
        yield "A POST to any other path under an API's prefix is refused; all else is no LLM call, and no hook sees it."
    else:
        yield "Every other path is no LLM call, and no hook sees it."


def _who_may_call(settings: Settings) -> Iterator[str]:
    count = len(settings.keys)
    keys = [f"one of {count} keys" if count > 1 else "the one key"] if count else []
    keys += ["the master key"] if settings.master_key else []
    if settings.custom_auth is not None:
        yield f"custom_auth decides who may call{', in place of the configured keys' if keys else ''}."
    elif keys:
        yield f"Every call needs {' or '.join(keys)}."
        limited = sum(bool(key.get("models")) for key in settings.keys)
        if limited:
            yield f"{limited} of the keys may use certain models only."
    else:
        yield "No call needs a key."
    yield from (f"{sentence[0].upper()}{sentence[1:]}." for sentence in uncounted(settings))


def table(titles: tuple[str, ...], found: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table: its titles, and a row a line."""
    lines = [titles, *found]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
