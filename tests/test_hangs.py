"""An iterator hook that hangs is decided by `on_hook_error`, as one that crashes is."""

from __future__ import annotations

import anyio
import pytest

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import DONE, START, App, event, piece, said
from tests.harness import Request, Upstream, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Hangs(CallHooks):
    """Hangs at the second chunk, with that chunk in hand or asking for none."""

    hook_timeout = 1
    on_hook_error = "allow"

    def __init__(self, *, asks):
        self.asks = asks

    async def async_post_call_streaming_iterator_hook(self, response):
        yield await anext(response)
        if self.asks:
            await anext(response)
        await anyio.sleep_forever()


class Onward(CallHooks):
    on_hook_error = "allow"
    hook_timeout = 1

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:  # pragma: no branch  # never to its end: it is cancelled
            yield chunk


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("callbacks", [[], [Onward()]], ids=["alone", "around another"])
async def test_a_hang_that_is_allowed_passes_on_the_chunk_in_hand_and_the_rest(asks, callbacks):
    chunks = [said("a"), said("b"), said("c", "stop")]
    app = Upstream([START, *map(piece, map(event, chunks)), piece(DONE, more=False)])
    gate = LLMGate(app, callbacks=[*callbacks, Hangs(asks=asks)])
    response = await Request(chat(stream=True)).to(gate)
    assert response.chunks() == chunks


async def test_a_hang_is_not_allowed_where_one_of_the_hooks_says_so():
    class Refuses(Onward):
        on_hook_error = "reject"

    app = Upstream([START, *map(piece, map(event, [said("a"), said("b"), said("c", "stop")]))])
    response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=[Refuses(), Hangs(asks=True)]))
    assert response.chunks()[0] == said("a")
    assert response.chunks()[-1]["error"]["code"] == "internal_error"


async def test_a_chunk_that_nobody_took_passes_on_too():
    class GivesUp(Onward):
        """Asks with a time limit of its own, gives up, and hangs."""

        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)
            with anyio.move_on_after(0.1):
                await anext(response)
            await anyio.sleep_forever()

    async def late(receive, send):
        await anyio.sleep(0.5)

    chunks = [said("a"), said("b", "stop")]
    app = App(START, piece(event(chunks[0])), late, piece(event(chunks[1])), piece(DONE, more=False))
    response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=[GivesUp()]))
    assert response.chunks() == chunks
