"""A client that leaves while a pre-call hook thinks ends its call at once."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.deadline import on_asyncio
from asgi_llm_gate.presence import DisconnectedError, while_connected
from tests.actors import App, Client, Recorder, tasks_living
from tests.harness import Upstream, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class Thinks(CallHooks):
    def __init__(self):
        self.began = anyio.Event()
        self.cancelled = False

    async def async_pre_call_hook(self):
        self.began.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise


async def test_a_client_that_leaves_while_a_pre_call_hook_thinks_is_one_failure_at_once():
    client, recorder, thinks, app = Client(chat()), Recorder(), Thinks(), App()
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[recorder, thinks], hook_timeout=3600))
        await thinks.began.wait()
        client.gone.set()
    assert thinks.cancelled
    assert [exc.status_code for exc in recorder.failures] == [499, 499]
    assert sorted(recorder.events) == ["failure", "failure hook"]
    assert app.log == client.sent == []
    assert tasks_living() == before


async def test_a_call_cancelled_from_outside_while_a_hook_thinks_stays_cancelled():
    client, recorder, thinks = Client(chat()), Recorder(), Thinks()
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(), callbacks=[recorder, thinks]))
        await thinks.began.wait()
        group.cancel_scope.cancel()
    assert thinks.cancelled
    assert sorted(recorder.events) == ["failure", "failure hook"]


async def test_a_hook_that_waits_and_decides_is_obeyed_while_the_client_stays():
    class Decides(CallHooks):
        async def async_pre_call_hook(self, data):
            with anyio.move_on_after(1):
                await anyio.sleep_forever()
            data["model"] = "other"

    client, app = Client(chat()), Upstream()
    await client.call(LLMGate(app, callbacks=[Decides()]))
    assert app.data["model"] == "other"


async def fails():
    await checkpoint()
    raise LookupError


async def waits():
    await anyio.sleep(1)
    return "done"


async def gives_again():
    return {"type": "http.request", "body": b""}


async def breaks():
    raise OSError


async def says_nothing():
    await anyio.sleep_forever()


@pytest.mark.parametrize("receive", [gives_again, breaks, says_nothing])
async def test_what_a_server_says_beside_a_disconnect_disturbs_nothing(receive):
    assert await while_connected(receive, waits(), stepping=on_asyncio()) == "done"
    with pytest.raises(LookupError):
        await while_connected(receive, fails(), stepping=on_asyncio())


async def test_what_never_suspends_is_not_watched():
    async def answers():
        return "done"

    async def unread():
        raise AssertionError

    assert await while_connected(unread, answers(), stepping=on_asyncio()) == "done"


async def test_a_client_that_is_gone_already_is_told_by_an_error():
    async def gone():
        return {"type": "http.disconnect"}

    with pytest.raises(DisconnectedError):
        await while_connected(gone, waits(), stepping=on_asyncio())
