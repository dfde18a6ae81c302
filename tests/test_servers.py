from __future__ import annotations

from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.servers import SERVERS, serve


@pytest.mark.parametrize("server", SERVERS)
def test_an_app_is_served_from_its_start_up_to_its_shutdown(server):
    """The block sees the app started, and leaving it has the app shut down."""
    seen = []

    @asynccontextmanager
    async def lifespan(app):
        seen.append("up")
        yield
        seen.append("down")

    async def hello(request):
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)], lifespan=lifespan)
    with SERVERS[server](app) as url:
        assert httpx.get(f"{url}/").text == "hello"
        assert seen == ["up"]
    assert seen == ["up", "down"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/")


def test_an_app_that_cannot_start_is_told_of():
    """A failed start-up raises in the test, instead of a server that never comes up."""

    def lifespan(app):
        raise OSError("no database")

    with pytest.raises(RuntimeError, match="did not start"):
        serve(Starlette(lifespan=lifespan)).__enter__()
