"""The Redis of the tests themselves."""

from __future__ import annotations

import pytest
import redis

from tests.services import require


def test_it_keeps_its_port_and_nothing_else_when_it_is_killed(redis_server):
    with redis_server.client() as client:
        client.set("a", 1)
        for _ in range(2):
            redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.get("a") is None


def test_every_test_gets_an_empty_one_that_runs(redis_server):
    with redis_server.client() as client:
        client.set("a", 1)
        redis_server.refresh()
        assert client.get("a") is None
        redis_server.kill()
        redis_server.refresh()
        assert client.ping()


def test_stopped_it_answers_nothing_and_goes_on_after(redis_server):
    with redis_server.client() as client:
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.05
        with redis_server.stopped(), pytest.raises(redis.TimeoutError):
            client.ping()
        assert client.ping()


def test_where_a_program_is_missing_tests_are_skipped(monkeypatch):
    monkeypatch.delenv("LLM_GATE_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: no-such-program is not installed"):
        require("no-such-program")


def test_where_all_services_are_required_a_missing_program_is_a_failure(monkeypatch):
    monkeypatch.setenv("LLM_GATE_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program")
