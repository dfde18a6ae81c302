"""The parallel request limiter: how many calls, and how many tokens, a key, user, team or model may have."""

# ruff: noqa: ARG002  # hooks with the base class's signatures

from __future__ import annotations

import logging
import math
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate import CallHooks, get_formatted_prompt
from asgi_llm_gate.builtin.ledger import Ledger
from asgi_llm_gate.builtin.limits import Claim, Standing, limits_of
from asgi_llm_gate.builtin.redis_ledger import RedisLedger
from asgi_llm_gate.builtin.tokens import Spending, asks_for_usage, only_usage
from asgi_llm_gate.cache import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asgi_llm_gate import DualCache, UserAPIKeyAuth
    from asgi_llm_gate.builtin.limits import Limit, Use

logger = logging.getLogger("asgi_llm_gate")

# The endpoints whose streams say their usage where `stream_options` ask for it.
_SAY_USAGE = frozenset({"completion", "acompletion", "text_completion", "atext_completion"})


class _Call:
    """One call under limits.

    Attributes:
        claim: What it asks for.
        call_type: The word for what it calls.
        standing: How its caller stood when it asked.
        ledger: Who counts it: the process, or all through Redis.
        holds: It may hold a slot, and has tokens to count.
        hides: The client had not asked for the chunk with the usage.
        spending: What is known of its tokens.
    """

    def __init__(self, limits: Sequence[Limit], call_type: str) -> None:
        self.claim = Claim(secrets.token_hex(16), limits)
        self.call_type = call_type
        self.standing: Standing | None = None
        self.ledger: Ledger | RedisLedger
        self.holds = True
        self.hides = False
        self.spending = Spending()
        self.counts_tokens = bool(self.claim.of("tokens"))


class ParallelRequestLimiter(CallHooks):
    """Refuses calls over ``max_parallel_requests``, ``rpm_limit`` or ``tpm_limit``: 429, and when to come again.

    Limits are the caller's: those of its key, of its user (``user_…``), of its team (``team_…``), and of the key for a
    model (``model_…`` in its metadata). Where the cache is on Redis, they hold over all processes and hosts.

    Args:
        lease_seconds: After how long the slots of a process that has died are free again.

    Raises:
        ValueError: The lease is no time.
    """

    shared_state = True

    def __init__(self, *, lease_seconds: float = 30.0) -> None:
        given: Any = lease_seconds
        if not isinstance(given, int | float) or not 0 < given < math.inf:
            raise ValueError(f"lease_seconds: expected more than 0 seconds, got {given!r}")
        self._lease_seconds = lease_seconds
        self._own = Ledger()
        self._shared: dict[Any, RedisLedger] = {}
        # By the identity of their data: one dict through the whole call, whatever other hooks put in it.
        self._calls: dict[int, _Call] = {}
        self._is_away = False

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: DualCache, data: dict[str, Any], call_type: str
    ) -> None:
        """Take the call's part of all limits; refuse it where one is reached."""
        via = data.get("proxy_server_request", {}).get("via", "http")
        limits: Sequence[Limit] = limits_of(user_api_key_dict, data.get("model")) if via != "file" else ()
        if via == "websocket":  # where no hook sees the end of a call
            limits = [limit for limit in limits if limit.kind != "slots"]
        if not limits:
            return
        call = _Call(limits, call_type)
        if via == "http":
            self._calls[id(data)] = call
        call.standing = Standing(limits, await self._take(call, cache))
        if refusal := call.standing.refusal():
            call.holds = False
            raise refusal
        if call.counts_tokens and call_type in _SAY_USAGE:
            call.hides = asks_for_usage(data)

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> dict[str, str]:
        """Say how the caller stands."""
        call = self._calls.get(id(data))
        return {} if call is None or call.standing is None else call.standing.headers()

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> None:
        """Read what the answer cost."""
        call = self._calls.get(id(data))
        if call is not None and call.counts_tokens:
            call.spending.see(response)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: UserAPIKeyAuth, response: AsyncIterator[Any], request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Read what a stream costs, without the chunk that only the limiter has asked for."""
        call = self._calls.get(id(request_data))
        async for chunk in response:
            if call is not None and call.counts_tokens:
                call.spending.see_chunk(chunk)
                if call.hides and only_usage(chunk):
                    continue
            yield chunk
        # The app has said its all, and the client, who is told so next, may come again.
        if call is not None:
            await self._give(call, request_data)

    async def async_post_call_ended_hook(self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth) -> None:
        """Give the slot back, and count the tokens."""
        if call := self._calls.pop(id(data), None):
            await self._give(call, data)

    async def aclose(self) -> None:
        """Stop renewing leases: there are no calls any more."""
        for ledger in self._shared.values():
            await ledger.aclose()

    async def _take(self, call: _Call, cache: DualCache) -> Sequence[Use]:
        redis = getattr(cache, "redis_cache", None)
        call.ledger = self._own if redis is None else self._on(redis)
        if isinstance(call.ledger, Ledger):
            return call.ledger.take(call.claim)
        try:
            uses = await call.ledger.take(call.claim)
        except StoreError as error:
            self._note_away(error)
            if cache.on_store_error != "allow":
                raise
            call.ledger = self._own
            return self._own.take(call.claim)
        self._note_back()
        return uses

    async def _give(self, call: _Call, data: dict[str, Any]) -> None:
        """Give back what a call holds, once."""
        if not call.holds:
            return
        call.holds = False
        tokens = 0
        try:
            if call.counts_tokens:
                tokens = self._tokens(call, data)
        finally:
            if isinstance(call.ledger, Ledger):
                call.ledger.give(call.claim, tokens)
            else:
                await self._give_shared(call.ledger, call.claim, tokens)

    async def _give_shared(self, ledger: RedisLedger, claim: Claim, tokens: int) -> None:
        with anyio.CancelScope(shield=True):  # the Redis client has a time limit
            try:
                await ledger.give(claim, tokens)
            except StoreError as error:
                self._note_away(error)

    def _tokens(self, call: _Call, data: dict[str, Any]) -> int:
        """Return what a call cost whose answer was seen, and leave it for the log."""
        if not call.spending.answered:
            return 0
        cost = call.spending.cost(partial(get_formatted_prompt, data, call.call_type))
        metadata = data.get("metadata")
        if isinstance(metadata, dict):
            metadata["rate_limit_tokens"] = cost._asdict()
        return cost.tokens

    def _on(self, redis: Any) -> RedisLedger:
        if redis not in self._shared:
            self._shared[redis] = RedisLedger(redis, self._lease_seconds)
        return self._shared[redis]

    def _note_away(self, error: StoreError) -> None:
        if not self._is_away:
            self._is_away = True
            logger.error("limits can't be counted for all processes (on_store_error decides): %s", error)

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            logger.warning("limits are counted for all processes again")
