"""What a Redis is asked, each a script: one step that nothing comes between, and one round trip.

An entry is JSON, or a set of JSON texts. A number is its digits, which Redis can add to. An overwrite or an increment
leaves the life of an entry as it is, which Redis would not do by itself.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

# A life in milliseconds from which on there is no end; Redis would take no more.
_FOREVER = 10**15

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


class Entry(NamedTuple):
    """What a Redis has under a key.

    Attributes:
        value: The value, None if there is none.
        seconds: What is left of its life, `math.inf` if it has no end.
    """

    value: Any
    seconds: float


class Script:
    """A script in Lua, and the name under which Redis knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """Something to ask.

    Attributes:
        script: The script.
        keys: The keys, as the cache names them.
        arguments: What else the script is given.
        read: Reads the answer.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[bytes | str | float]
    read: Callable[[Any], T]


class Increment(NamedTuple):
    """An addition to a number.

    Attributes:
        key: Its name; a missing one counts as 0.
        amount: How much.
        ttl: Seconds, if the number is new.
        refresh: Start its time anew.
    """

    key: str
    amount: float
    ttl: float
    refresh: bool = False


_GET = Script("""
local found = {}
for _, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then value = redis.call('SMEMBERS', key) end
  table.insert(found, value)
  table.insert(found, redis.call('PTTL', key))
end
return found
""")

_SET = Script("""
local life, refresh = tonumber(ARGV[1]), ARGV[2] == '1'
local lives = {}
for index, key in ipairs(KEYS) do
  local value = ARGV[index + 2]
  if refresh or not redis.call('SET', key, value, 'XX', 'KEEPTTL') then
    if life == 0 then
      redis.call('DEL', key)
    elseif life < 0 then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'PX', ARGV[1])
    end
  end
  table.insert(lives, redis.call('PTTL', key))
end
return lives
""")

_LIVE = """
local function live(key, life)
  if tonumber(life) == 0 then
    redis.call('DEL', key)
  elseif tonumber(life) < 0 then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, life)
  end
end
"""

_INCREMENT = Script(
    _LIVE
    + """
local sums = {}
for index, key in ipairs(KEYS) do
  local amount, life, refresh = ARGV[3 * index - 2], ARGV[3 * index - 1], ARGV[3 * index]
  local before = redis.call('GET', key)
  local command = 'INCRBY'
  if string.find((before or '') .. amount, '[.eE]') then command = 'INCRBYFLOAT' end
  redis.call(command, key, amount)
  table.insert(sums, redis.call('GET', key))
  if refresh == '1' or not before then live(key, life) end
  table.insert(sums, redis.call('PTTL', key))
end
return sums
"""
)

_ADD = Script(
    _LIVE
    + """
local new = redis.call('EXISTS', KEYS[1]) == 0
for index = 2, #ARGV do redis.call('SADD', KEYS[1], ARGV[index]) end
if new then live(KEYS[1], ARGV[1]) end
return {redis.call('SMEMBERS', KEYS[1]), redis.call('PTTL', KEYS[1])}
"""
)

_DELETE = Script("for _, key in ipairs(KEYS) do redis.call('DEL', key) end")

# The key only says on which node of a cluster the others are.
_FLUSH = Script("""
local cursor, keys = unpack(redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 1000))
for _, key in ipairs(keys) do redis.call('UNLINK', key) end
return cursor
""")


def get(keys: Sequence[str]) -> Command[list[Entry]]:
    """Read entries."""
    return Command(_GET, keys, (), _entries)


def put(pairs: Iterable[tuple[str, bytes]], ttl: float, *, refresh: bool = False) -> Command[list[float]]:
    """Write entries, new ones for `ttl` seconds; returns what is left of their lives.

    Args:
        pairs: Keys and values, these as `encoded`.
        ttl: Seconds.
        refresh: Start their time anew.
    """
    pairs = list(pairs)
    arguments: list[bytes | int] = [_milliseconds(ttl), int(refresh), *(value for _, value in pairs)]
    return Command(_SET, [key for key, _ in pairs], arguments, lambda lives: [_seconds(life) for life in lives])


def increment(increments: Sequence[Increment]) -> Command[list[Entry]]:
    """Add to numbers; returns the sums, each an int if all that was added up is."""
    arguments = [
        argument
        for _, amount, ttl, refresh in increments
        for argument in (_digits(amount), _milliseconds(ttl), int(refresh))
    ]
    return Command(_INCREMENT, [increment.key for increment in increments], arguments, _entries)


def add(key: str, members: Iterable[Any], ttl: float) -> Command[Entry]:
    """Add members to a set; returns the set.

    Raises:
        TypeError: A member can't be written as JSON, or could not be read back as a set's.
    """
    written = [encoded(member) for member in members]
    _members(written)
    return Command(_ADD, [key], (_milliseconds(ttl), *written), lambda answer: _entries(answer)[0])


def delete(keys: Sequence[str]) -> Command[None]:
    """Delete entries."""
    return Command(_DELETE, keys, (), lambda _: None)


def flush(cursor: bytes, pattern: str) -> Command[bytes]:
    """Delete some of the entries whose whole keys a pattern fits; returns where to go on, ``b"0"`` at the end."""
    return Command(_FLUSH, [""], (cursor, pattern), bytes)


def encoded(value: Any) -> bytes:
    """Write a value.

    Raises:
        TypeError: It can't be written as JSON.
    """
    try:
        if isinstance(value, float) and not math.isfinite(value):
            raise TypeError(f"{value} is no number of JSON")
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as exc:
        raise TypeError(f"a {type(value).__name__} can't be kept in Redis: {exc}") from None


def decoded(value: bytes | list[bytes] | None) -> Any:
    """Read an entry: a value, or a set."""
    if value is None:
        return None
    return _members(value) if isinstance(value, list) else orjson.loads(value)


def _members(written: Iterable[bytes]) -> set[Any]:
    return {orjson.loads(member) for member in written}


def _entries(answer: list[Any]) -> list[Entry]:
    """Read values and lives, which stand in turn."""
    values, lives = answer[::2], answer[1::2]
    return [Entry(decoded(value), _seconds(life)) for value, life in zip(values, lives, strict=True)]


def _digits(amount: Any) -> str:
    """Write a number as Redis adds it.

    Raises:
        TypeError: It is none.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
        raise TypeError(f"expected a number to add, got {amount!r}")
    return repr(amount)


def _milliseconds(ttl: float) -> int:
    """Return a life as the scripts take it: 0 for none at all, -1 for one without end."""
    if not ttl > 0:
        return 0
    return -1 if ttl * 1000 >= _FOREVER else math.ceil(ttl * 1000)


def _seconds(life: int) -> float:
    """Read a life: -1 has no end, -2 is no entry."""
    return {-1: math.inf, -2: 0.0}.get(life, life / 1000)
