"""Where a Redis is: what is read of URLs and of LiteLLM's parameters, and that no password gets out."""

from __future__ import annotations

import sys

import pytest

from asgi_llm_gate.cache.address import AddressError, from_params, from_url
from asgi_llm_gate.cache.redis import RedisCache

SECRET = "hunter2"

# A URL, how it is shown, and what redis-py is told.
URLS = {
    "redis://": ("Redis at localhost:6379", {}),
    "redis://h": ("Redis at h:6379", {}),
    "REDIS://h:1/2": ("Redis at h:1", {"db": 2}),
    "redis://h?db=3": ("Redis at h:6379", {"db": 3}),
    "redis://u:hunter2%40@h:1": ("Redis at h:1", {"username": "u", "password": "hunter2@"}),
    "redis://:hunter2@[::1]:6380/0": ("Redis at ::1:6380", {"password": SECRET, "db": 0}),
    "redis://h?password=hunter2": ("Redis at h:6379", {"password": SECRET}),
    "rediss://h?ssl_cert_reqs=none": ("Redis at h:6379", {"ssl_cert_reqs": "none"}),
    "redis://h?decode_responses=1&protocol=3&retry_on_timeout=1&timeout=5": ("Redis at h:6379", {}),
    "unix:///run/redis.sock?db=3": ("Redis at /run/redis.sock", {"db": 3}),
    "unix://u:hunter2@/run/redis.sock": ("Redis at /run/redis.sock", {"username": "u", "password": SECRET}),
    "redis+cluster://:hunter2@a:1,b:2,c": ("the Redis cluster at a:1, b:2, c:6379", {"password": SECRET}),
    "rediss+cluster://a/0": ("the Redis cluster at a:6379", {}),
    "redis+sentinel://:hunter2@a:1,b/main": ("the Redis main of the sentinels at a:1, b:26379", {"password": SECRET}),
    "redis+sentinel://a/1/2": ("the Redis 1 of the sentinels at a:26379", {"db": 2}),
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_read_as_redis_py_reads_it(url):
    shown, options = URLS[url]
    address = from_url(url)
    assert str(address) == shown
    assert address.options == options
    assert address.tls == url.startswith("rediss")
    assert SECRET not in repr(address)
    assert repr(RedisCache(url)) == f"RedisCache({shown})"


def test_a_url_may_bound_the_pool_and_the_wait():
    address = from_url("redis+sentinel://a/main?max_connections=3&socket_timeout=0.5")
    assert (address.max_connections, address.timeout, address.options) == (3, 0.5, {})


WRONG_URLS = {
    **dict.fromkeys(
        ["", "h", "redis", "http://h", "redis+other://h", "redis+://h", "unix+cluster:///s", "redis://h/abc"],
        "expected a URL such as redis://",
    ),
    # What is not encoded in a password is not taken for a host, a port or a path.
    **dict.fromkeys(
        [
            "redis://:hunter2/x@h",
            "redis://:1/hunter2@h",
            "redis://:12?hunter2@h",
            "redis://:1#hunter2@h",
            "redis://[hunter2",
        ],
        "expected a URL such as redis://",
    ),
    "redis://h:hunter2": "expected a URL such as redis://",
    "redis+cluster://a,b:hunter2": "expected a URL such as redis://",
    "redis+sentinel://a": "expected a URL such as redis://",
    "redis+sentinel://a/main/hunter2": "expected a URL such as redis://",
    "redis://h?db=hunter2": "expected a URL such as redis://",
    "redis://h?hunter2=1": "it has an option that redis-py does not know",
    "redis+cluster://a/1": "a cluster has no databases to choose from",
    "redis://h?max_connections=0": "expected at least one connection, and a time limit of more than 0 seconds",
    "redis://h?socket_timeout=0": "expected at least one connection, and a time limit of more than 0 seconds",
}


@pytest.mark.parametrize("url", WRONG_URLS)
def test_a_wrong_url_is_told_without_showing_it(url):
    with pytest.raises(AddressError) as caught:
        from_url(url)
    assert str(caught.value).startswith(WRONG_URLS[url])
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


HOST = {"host": "h", "port": 1}

# LiteLLM's parameters, variables of the environment, how the address is shown, what redis-py is told.
PARAMS = {
    "a host": (HOST, {}, "Redis at h:1", {}),
    "a host alone": ({"host": "h", "port": None}, {}, "Redis at h:6379", {}),
    "all of it": (
        {**HOST, "username": "u", "password": SECRET, "db": "3", "ssl": True, "ssl_ca_certs": "/ca.pem"},
        {},
        "Redis at h:1",
        {"username": "u", "password": SECRET, "db": 3, "ssl_ca_certs": "/ca.pem"},
    ),
    "a url": ({"url": "rediss://h/2"}, {"REDIS_HOST": "other"}, "Redis at h:6379", {"db": 2}),
    "nothing, and a url around": ({}, {"REDIS_URL": "redis://h", "REDIS_HOST": "other"}, "Redis at h:6379", {}),
    "nothing, and a host around": (
        {},
        {"REDIS_HOST": "h", "REDIS_PORT": "2", "REDIS_PASSWORD": SECRET, "REDIS_SSL": "True"},
        "Redis at h:2",
        {"password": SECRET},
    ),
    "a host, and a url around": (HOST, {"REDIS_URL": "redis://other", "REDIS_DB": "4"}, "Redis at h:1", {"db": 4}),
    "a cluster": (
        {"redis_startup_nodes": [{"host": "a", "port": "1"}, {"host": "b", "port": 2}], "password": SECRET},
        {"REDIS_URL": "redis://other"},
        "the Redis cluster at a:1, b:2",
        {"password": SECRET},
    ),
    "sentinels": (
        {"sentinel_nodes": [["a", 1], ["b", "2"]], "service_name": "main", "sentinel_password": SECRET, "db": 1},
        {},
        "the Redis main of the sentinels at a:1, b:2",
        {"db": 1},
    ),
}


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_are_read_as_litellm_reads_them(name):
    params, environ, shown, options = PARAMS[name]
    address = from_params(params, environ)
    assert (str(address), address.options) == (shown, options)
    assert address.tls == ("ssl" in params or "REDIS_SSL" in environ or "rediss" in params.get("url", ""))
    assert address.sentinel_options == ({"password": SECRET} if "sentinel_password" in params else {})
    assert SECRET not in repr(address)


def test_parameters_may_bound_the_pool_and_the_wait():
    address = from_params({**HOST, "max_connections": "3", "socket_timeout": "0.5"}, {})
    assert (address.max_connections, address.timeout) == (3, 0.5)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"port": 1},
        {"host": "h", "port": SECRET},
        {"host": "h", "db": SECRET},
        {"redis_startup_nodes": [SECRET]},
        {"redis_startup_nodes": [{"host": "a"}]},
        {"sentinel_nodes": [["a"]], "service_name": "main"},
        {"sentinel_nodes": [["a", 1]]},
        {"sentinel_nodes": 5},
        {"url": 5},
    ],
)
def test_wrong_parameters_are_told_without_showing_them(params):
    with pytest.raises(AddressError, match=r"^expected a url; or host and port; or redis_startup_nodes") as caught:
        from_params(params, {})
    assert SECRET not in str(caught.value)


def test_a_wrong_url_among_the_parameters_is_told_as_one():
    with pytest.raises(AddressError, match=r"^expected a URL such as redis://"):
        from_params({"url": SECRET}, {})


@pytest.mark.parametrize("missing", ["redis.connection", "redis.asyncio.retry"])
def test_where_redis_py_is_not_installed_one_line_says_how_to_install_it(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"^the cache on Redis needs redis: pip install 'asgi-llm-gate\[redis\]'$"):
        RedisCache("redis://h")
