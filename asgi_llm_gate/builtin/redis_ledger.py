"""What is used of limits, counted in Redis for all processes: one script, so one round trip and one step, each time."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.builtin.leases import Leases
from asgi_llm_gate.builtin.limits import WINDOW, Use
from asgi_llm_gate.cache import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_llm_gate.builtin.limits import Claim, Limit

# The time is Redis' own, for the processes' clocks may differ. A slot is a member of a sorted set, its score the time
# at which it is free again, in milliseconds. A window is a counter that expires.

# KEYS: one a limit. ARGV: the call's id, the lease, the window; then of each limit its kind and the most.
# Returns of each limit what was used before, and the milliseconds to its window's end.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, window = tonumber(ARGV[2]), tonumber(ARGV[3])
local uses, free = {}, true
for i, key in ipairs(KEYS) do
  local used, left = 0, 0
  if ARGV[2 * i + 2] == 'slots' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
  else
    used = tonumber(redis.call('GET', key) or 0)
    left = math.max(redis.call('PTTL', key), 0)
  end
  uses[2 * i - 1], uses[2 * i] = used, left
  free = free and used < tonumber(ARGV[2 * i + 3])
end
if not free then
  return uses
end
for i, key in ipairs(KEYS) do
  if ARGV[2 * i + 2] == 'slots' then
    redis.call('ZADD', key, now + lease, ARGV[1])
    if redis.call('PTTL', key) < lease then
      redis.call('PEXPIRE', key, lease)
    end
  elseif ARGV[2 * i + 2] == 'requests' and redis.call('INCR', key) == 1 then
    redis.call('PEXPIRE', key, window)
    uses[2 * i] = window
  end
end
return uses
"""

# KEYS: one a limit. ARGV: the call's id, its tokens, the window; then the limits' kinds.
_GIVE = """
local tokens = tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  if ARGV[i + 3] == 'slots' then
    redis.call('ZREM', key, ARGV[1])
  elseif tokens > 0 then
    redis.call('INCRBY', key, tokens)
    if redis.call('PTTL', key) < 0 then
      redis.call('PEXPIRE', key, ARGV[3])
    end
  end
end
"""

# KEYS: one a slot. ARGV: the lease; then the slots' ids. One that Redis has lost is there again.
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + lease, ARGV[i + 1])
  if redis.call('PTTL', key) < lease then
    redis.call('PEXPIRE', key, lease)
  end
end
"""

# Renewals in one lease: one may fail, or two.
_RENEWALS = 3


class RedisLedger:
    """The slots, requests and tokens in use, of all processes on one Redis.

    Args:
        redis: The cache's Redis.
        lease_seconds: How long a slot stays taken whose process says nothing of it.
    """

    def __init__(self, redis: Any, lease_seconds: float) -> None:
        self._take = redis.async_register_script(_TAKE)
        self._give = redis.async_register_script(_GIVE)
        self._renew = redis.async_register_script(_RENEW)
        self._lease_seconds = lease_seconds
        self._leases: weakref.WeakKeyDictionary[Any, Leases] = weakref.WeakKeyDictionary()

    async def take(self, claim: Claim) -> Sequence[Use]:
        """Give a call its part of all limits, or of none where one of them is reached; return what was used before.

        Raises:
            StoreError: Redis is away, or too slow.
        """
        wanted = [value for limit in claim.limits for value in (limit.kind, limit.most)]
        found = await self._take(keys=_keys(claim.limits), args=[claim.id, self._lease, _milliseconds(WINDOW), *wanted])
        uses = [Use(used, left / 1000) for used, left in zip(found[::2], found[1::2], strict=True)]
        taken = all(use.used < limit.most for limit, use in zip(claim.limits, uses, strict=True))
        if taken and claim.of("slots"):
            self._own_leases().hold(claim)
        return uses

    async def give(self, claim: Claim, tokens: int) -> None:
        """Take a call's slots back, as often as this is said, and count its tokens.

        Raises:
            StoreError: Redis is away, or too slow. The slots come back when their leases end.
        """
        self._own_leases().drop(claim)
        limits = claim.of("slots", "tokens") if tokens else claim.of("slots")
        if limits:
            kinds = [limit.kind for limit in limits]
            await self._give(keys=_keys(limits), args=[claim.id, tokens, _milliseconds(WINDOW), *kinds])

    async def aclose(self) -> None:
        """Stop renewing."""
        await self._own_leases().aclose()

    @property
    def _lease(self) -> int:
        return _milliseconds(self._lease_seconds)

    def _own_leases(self) -> Leases:
        loop = asyncio.get_running_loop()
        leases = self._leases.get(loop)
        if leases is None:
            leases = self._leases[loop] = Leases(self._renew_all, self._lease_seconds / _RENEWALS)
        return leases

    async def _renew_all(self, claims: Sequence[Claim]) -> None:
        slots = [(limit, claim.id) for claim in claims for limit in claim.of("slots")]
        holders = [holder for _, holder in slots]
        try:
            await self._renew(keys=_keys(limit for limit, _ in slots), args=[self._lease, *holders])
            for claim in claims:
                if claim not in self._own_leases():  # given back meanwhile, perhaps before it was renewed
                    await self.give(claim, 0)
        except StoreError:
            return  # there is another time


def _keys(limits: Iterable[Limit]) -> list[str]:
    """Return the limits' names in Redis. A cluster keeps all of a cache's in one place, as a script must have them."""
    return [f"limits:{limit.key}" for limit in limits]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
