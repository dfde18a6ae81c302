"""Wherever a call carries text, a hook that looks for it finds it; whatever else a call says, it stays a call."""

from __future__ import annotations

import orjson
import pytest

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from tests.harness import JSON, Request, Upstream, chat
from tests.hosts import APPS, Reader, host
from tests.tables.channels import DISGUISES, FORBIDDEN, TEXTS

pytestmark = pytest.mark.anyio


class Forbids(CallHooks):
    async def async_pre_call_hook(self, data, call_type):
        return "No" if FORBIDDEN in get_formatted_prompt(data, call_type) else None


@pytest.mark.parametrize("row", TEXTS, ids=[row.name for row in TEXTS])
async def test_text_is_found(row):
    """`get_formatted_prompt` has the text, and without it nothing of the kind."""
    for body, found in ((orjson.dumps({"model": "m", **row.fields}), True), (b'{"model":"m"}', False)):
        app = Upstream()
        await Request(body, row.path).to(LLMGate(app, callbacks=[Forbids()]))
        assert (app.calls == []) is found


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("framework", APPS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("row", DISGUISES, ids=[row.name for row in DISGUISES])
async def test_disguises(row, framework, gated):
    """The handler is reached with and without a gate; with one, it reads what the hooks saw."""
    app, reader = host(framework), Reader()
    sent = Request(chat(**row.fields), headers=[*JSON, *row.headers], scope={"query_string": row.query})
    await sent.to(LLMGate(app, callbacks=[reader]) if gated else app)
    (note,) = app.notes
    assert reader.requests == [note.data] * gated
