"""No path brings a handler a call that the hooks have not seen, and no other path is touched."""

from __future__ import annotations

import pytest

from asgi_llm_gate import LLMGate
from tests.harness import Request, Upstream, chat
from tests.hosts import APPS, LETTERS, Witness, host
from tests.tables.paths import PATHS, UNINSPECTED

pytestmark = pytest.mark.anyio

frameworks = pytest.mark.parametrize("framework", APPS)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
rows = pytest.mark.parametrize("row", PATHS, ids=[ascii(row.path) + row.root_path for row in PATHS])


def request(row, **fields):
    return Request(chat(), row.path, scope={"root_path": row.root_path}, **fields)


@on_asyncio
@frameworks
@rows
async def test_a_framework_alone(row, framework):
    """The table's last column is true: these paths lead to a handler that no gate stands before."""
    app = host(framework)
    await request(row).to(app)
    assert bool(app.notes) == (LETTERS[framework] in row.bare)


@on_asyncio
@frameworks
@rows
async def test_behind_the_gate(row, framework):
    """A handler that is reached was seen by the hooks, unless it is no LLM path; the app gets its own path."""
    app, witness = host(framework), Witness()
    response = await request(row).to(LLMGate(app, callbacks=[witness]))
    assert witness.call_types == [row.verdict] * (row.verdict not in {"passed", "refused"})
    if row.verdict == "refused":
        assert (response.status, response.error()["code"]) == (400, "invalid_path")
        assert app.scopes == []
    else:
        assert [(scope["path"], scope["root_path"]) for scope in app.scopes] == [(row.path, row.root_path)]
        assert bool(app.notes) == (LETTERS[framework] in row.bare)


@pytest.mark.parametrize("row", [row for row in PATHS if row.verdict == "passed"], ids=lambda row: ascii(row.path))
@pytest.mark.parametrize("body", [chat(), b'{"a":1,}', b"\xff", b""])
async def test_other_paths_are_not_touched(row, body):
    """What is no LLM call passes with its own scope, messages, `receive` and `send`, whatever is in it."""
    calls = []

    async def app(*arguments):
        calls.append(arguments)

    arguments = (request(row, headers=[("content-encoding", "br")]).scope, object(), object())
    await LLMGate(app, callbacks=[Witness()], enforce_user_param=True)(*arguments)
    assert len(calls) == 1
    assert all(got is sent for got, sent in zip(calls[0], arguments, strict=True))


@pytest.mark.parametrize(("path", "verdict"), UNINSPECTED, ids=[path for path, _ in UNINSPECTED])
async def test_endpoints_that_no_hook_looks_into(path, verdict):
    """A call that carries prompts or files past the hooks is refused by default; namesakes of an app's own pass."""
    app = Upstream()
    response = await Request(chat(), path).to(LLMGate(app, callbacks=[Witness()]))
    assert len(app.calls) == (verdict == "passed")
    if verdict == "denied":
        assert (response.status, response.error()["code"]) == (403, "endpoint_not_inspected")


@pytest.mark.parametrize("path", [path for path, verdict in UNINSPECTED if verdict == "denied"])
@pytest.mark.parametrize("odd", ["{}\n", "/{}", "{};x", "{}%0A", "/.{}", "{}?"])
async def test_odd_spellings_of_endpoints_that_no_hook_looks_into(path, odd):
    """An odd spelling is refused for every endpoint of the table."""
    app = Upstream()
    response = await Request(chat(), odd.format(path)).to(LLMGate(app))
    assert (response.status, response.error()["code"]) == (400, "invalid_path")
    assert app.calls == []


@pytest.mark.parametrize("headers", [[("host", "x/health?")], [("host", "evil"), ("x-original-url", "/health")]])
async def test_no_header_moves_the_path(headers):
    """Neither `Host` nor a proxy's header decides whether a request is a call."""
    app, witness = Upstream(), Witness()
    await Request(chat(), headers=headers).to(LLMGate(app, callbacks=[witness]))
    assert witness.call_types == ["completion"]


async def test_raw_path_is_not_asked():
    """The decoded path decides, as it does for the frameworks; a server may give no raw one."""
    app, witness = Upstream(), Witness()
    scope = {"raw_path": b"/health", "query_string": b"path=/health"}
    await Request(chat(), scope=scope).to(LLMGate(app, callbacks=[witness]))
    assert witness.call_types == ["completion"]


async def test_scope_without_optional_keys():
    """A scope may lack `root_path`, `query_string`, `client`, `asgi` and `raw_path`."""
    app, witness = Upstream(), Witness()
    request = Request(chat())
    request.scope = {key: request.scope[key] for key in ("type", "method", "path", "headers")}
    assert (await request.to(LLMGate(app, callbacks=[witness]))).status == 200
    assert witness.call_types == ["completion"]
