"""Where a Redis is: a server, a cluster, or what sentinels watch over; and redis-py's client for it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MISSING = "the cache on Redis needs redis: pip install 'asgi-llm-gate[redis]'"
EXPECTED = (
    "expected a URL such as redis://host:6379/0, rediss://…, unix:///path, redis+cluster://host,host or "
    "redis+sentinel://host,host/service; special characters of a password are percent-encoded in it"
)

Kind = Literal["server", "cluster", "sentinel"]

_SCHEMES = ("redis", "rediss", "unix")
_SEVERAL: Mapping[str, Kind] = {"cluster": "cluster", "sentinel": "sentinel"}

_PORT = 6379
_SENTINEL_PORT = 26379

# Connections of one pool, where the URL does not say `max_connections`.
MAX_CONNECTIONS = 50

# What the cache itself decides: it reads bytes, has its own time limit, and never does a thing twice.
_DECIDED = frozenset(
    {
        *("decode_responses", "encoding", "encoding_errors", "protocol", "retry", "retry_on_error"),
        *("retry_on_timeout", "socket_connect_timeout", "socket_timeout", "timeout", "connection_class"),
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """A Redis, by redis-py's own options. Its text shows hosts and ports alone.

    Attributes:
        kind: ``server``, ``cluster`` or ``sentinel``.
        nodes: Hosts and ports: of the server, of some of the cluster's nodes, of the sentinels.
        service: The name under which sentinels know the server.
        path: A socket in the file system, in place of a host.
        tls: Connections are encrypted.
        options: redis-py's options of a connection.
        sentinel_options: The same for the sentinels.
        max_connections: The most connections of one pool.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = (("localhost", _PORT),)
    service: str = ""
    path: str = ""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    max_connections: int = MAX_CONNECTIONS

    def __str__(self) -> str:
        nodes = self.path or ", ".join(f"{host}:{port}" for host, port in self.nodes)
        return {
            "server": f"Redis at {nodes}",
            "cluster": f"the Redis cluster at {nodes}",
            "sentinel": f"the Redis {self.service} of the sentinels at {nodes}",
        }[self.kind]

    def client(self, module: Any, timeout: float | None) -> Any:
        """Make redis-py's client, with a pool of its own; it never tries a command again.

        Args:
            module: `redis.asyncio`, or `redis`, whose client of a cluster connects at once.
            timeout: Seconds for each step, if redis-py is to keep the time.
        """
        from redis.backoff import NoBackoff

        common: dict[str, Any] = {
            "retry": module.retry.Retry(NoBackoff(), 0),
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        options = {**self.options, **common, "max_connections": self.max_connections}
        if self.kind == "cluster":
            nodes = [module.cluster.ClusterNode(host, port) for host, port in self.nodes]
            return module.RedisCluster(startup_nodes=nodes, ssl=self.tls, **options)
        if self.kind == "sentinel":
            asked = {**self.sentinel_options, **common, "ssl": self.tls}
            sentinel = module.Sentinel(self.nodes, sentinel_kwargs=asked)
            return sentinel.master_for(self.service, ssl=self.tls, **options)
        ((host, port),) = self.nodes
        place = {"path": self.path} if self.path else {"host": host, "port": port}
        connection = getattr(module.connection, _connection(self.path, tls=self.tls))
        return module.Redis.from_pool(module.ConnectionPool(connection_class=connection, **place, **options))


def from_url(url: str) -> Address:
    """Read a URL: redis-py's own, with several hosts for a cluster or sentinels.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: It is none; the message shows nothing of it.
    """
    scheme, _, rest = url.strip().partition("://")
    base, plus, several = scheme.lower().partition("+")
    end = next((index for index, character in enumerate(rest) if character in "/?#"), len(rest))
    authority, tail = rest[:end], rest[end:]
    # A password with such a character in it that is not encoded would end up as a host or port.
    if base not in _SCHEMES or (plus and (several not in _SEVERAL or base == "unix")) or "@" in tail:
        raise ValueError(EXPECTED)
    kind = _SEVERAL.get(several, "server")
    user, at, hosts = authority.rpartition("@")
    try:
        first, *others = hosts.split(",") if several else [hosts]
        options = _parsed(f"{base}://{user}{at}{first}{tail}")
        parts = [options, *(_parsed(f"redis://{other}") for other in others)]
        default = _SENTINEL_PORT if kind == "sentinel" else _PORT
        nodes = tuple((part.pop("host", "localhost"), part.pop("port", default)) for part in parts)
        path = "" if base == "unix" else tail.partition("?")[0].strip("/")
        if kind != "sentinel":
            return _address(kind, nodes, _with_database(options, path), tls=base == "rediss")
        service, _, database = path.partition("/")
        return _address(kind, nodes, _with_database(options, database), tls=base == "rediss", service=service)
    except ValueError:
        raise ValueError(EXPECTED) from None


def from_params(params: Mapping[str, Any]) -> Address:
    """Read LiteLLM's `cache_params`: a `url`, or `host` and the like, `redis_startup_nodes` or `sentinel_nodes`.

    Raises:
        ImportError: redis-py is not installed.
        KeyError, TypeError, ValueError: They are wrong.
    """
    options = {name: params[name] for name in ("username", "password", "db") if params.get(name) is not None}
    options |= {name: value for name, value in params.items() if name.startswith("ssl_")}
    if "db" in options:
        options["db"] = int(options["db"])
    if params.get("max_connections") is not None:
        options["max_connections"] = int(params["max_connections"])
    tls = bool(params.get("ssl"))
    if nodes := params.get("redis_startup_nodes"):
        found = tuple((str(node["host"]), int(node.get("port", _PORT))) for node in nodes)
        return _address("cluster", found, options, tls=tls)
    if nodes := params.get("sentinel_nodes"):
        found = tuple((str(host), int(port)) for host, port in nodes)
        password = params.get("sentinel_password")
        asked = {} if password is None else {"password": password}
        return _address(
            "sentinel", found, options, tls=tls, service=str(params["service_name"]), sentinel_options=asked
        )
    if params.get("url"):
        return from_url(params["url"])
    found = ((str(params["host"]), int(params.get("port") or _PORT)),)
    return _address("server", found, options, tls=tls)


def _parsed(url: str) -> dict[str, Any]:
    return dict(_module().parse_url(url))


def _module() -> Any:
    try:
        return importlib.import_module("redis.connection")
    except ModuleNotFoundError as exc:
        raise ImportError(MISSING) from exc


def _connection(path: str, *, tls: bool) -> str:
    """Return the name of redis-py's class."""
    if path:
        return "UnixDomainSocketConnection"
    return "SSLConnection" if tls else "Connection"


def _with_database(options: dict[str, Any], number: str) -> dict[str, Any]:
    if number and not number.isdecimal():
        raise ValueError(EXPECTED)
    return {**options, "db": int(number)} if number else options


def _address(kind: Kind, nodes: Iterable[tuple[str, int]], options: dict[str, Any], **more: Any) -> Address:
    """Make an address, and see that redis-py takes its options.

    Raises:
        ValueError: It does not; or a cluster is to have databases, or sentinels know no service.
    """
    path, most = options.pop("path", ""), options.pop("max_connections", MAX_CONNECTIONS)
    kept = {name: value for name, value in options.items() if name not in _DECIDED}
    if most < 1 or (kind == "cluster" and kept.pop("db", 0)) or (kind == "sentinel" and not more["service"]):
        raise ValueError(EXPECTED)
    try:
        getattr(_module(), _connection(path, tls=more["tls"]))(**kept)
    except TypeError:
        raise ValueError("it has an option that redis-py does not know") from None
    return Address(kind, tuple(nodes), path=path, options=kept, max_connections=most, **more)
