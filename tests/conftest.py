from __future__ import annotations

from typing import Any

import pytest

from tests.clocks import virtual
from tests.redis_server import redis_server, session_redis

__all__ = ["redis_server", "session_redis"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    if request.node.get_closest_marker("virtual_time"):
        return virtual(request.param)
    return request.param
