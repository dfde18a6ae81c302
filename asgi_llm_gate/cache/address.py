"""Where a Redis is: a server, a cluster, or what sentinels watch over; and redis-py's client for it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MISSING = "the cache on Redis needs redis: pip install 'asgi-llm-gate[redis]'"
EXPECTED_URL = (
    "expected a URL such as redis://host:6379/0, rediss://…, unix:///path, redis+cluster://host,host or "
    "redis+sentinel://host,host/service; special characters of a password are percent-encoded in it"
)
EXPECTED_PARAMS = (
    "expected a url; or host and port; or redis_startup_nodes, each with host and port; or sentinel_nodes, each a list "
    "of host and port, and a service_name"
)

Kind = Literal["server", "cluster", "sentinel"]

_SCHEMES = ("redis", "rediss", "unix")
_SEVERAL: Mapping[str, Kind] = {"cluster": "cluster", "sentinel": "sentinel"}

_PORT = 6379
_SENTINEL_PORT = 26379

# redis-py's options of an encrypted connection that have a place in LiteLLM's file.
_TLS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")

# Connections of one pool, where the URL does not say `max_connections`.
MAX_CONNECTIONS = 50

# Seconds that an answer may take, where the URL does not say `socket_timeout`.
TIMEOUT = 1.0

# What the cache itself decides: it reads bytes, has its own time limit, and never does a thing twice.
_DECIDED = frozenset(
    {
        *("decode_responses", "encoding", "encoding_errors", "protocol", "retry", "retry_on_error"),
        *("retry_on_timeout", "socket_connect_timeout", "socket_timeout", "timeout", "connection_class"),
    }
)


class AddressError(ValueError):
    """What is wrong with an address, in words that show nothing of it."""


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
        timeout: Seconds that an answer may take.
    """

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = (("localhost", _PORT),)
    service: str = ""
    path: str = ""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    max_connections: int = MAX_CONNECTIONS
    timeout: float = TIMEOUT

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
            encryption = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
            asked = {**encryption, **self.sentinel_options, **common, "ssl": self.tls}
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
        AddressError: It is none; the message shows nothing of it.
    """
    scheme, separator, rest = url.strip().partition("://")
    base, plus, several = scheme.lower().partition("+")
    end = next((index for index, character in enumerate(rest) if character in "/?#"), len(rest))
    (user, at, hosts), tail = rest[:end].rpartition("@"), rest[end:]
    path, mark, query = tail.partition("?")
    is_known = base in _SCHEMES and (not plus or (several in _SEVERAL and base != "unix"))
    # A password with such a character in it that is not encoded would end up as a host or port.
    if not separator or not is_known or "@" in tail:
        raise AddressError(EXPECTED_URL)
    kind = _SEVERAL.get(several, "server")
    first, *others = hosts.split(",") if several else [hosts]
    if base == "unix":
        first, path = first + path, ""
    parts = [_parsed(f"{base}://{user}{at}{first}{mark}{query}"), *(_parsed(f"redis://{other}") for other in others)]
    default = _SENTINEL_PORT if kind == "sentinel" else _PORT
    nodes = [(part.pop("host", "localhost"), part.pop("port", default)) for part in parts]
    service, _, database = path.strip("/").rpartition("/") if kind != "sentinel" else path.strip("/").partition("/")
    if (database and not database.isdecimal()) or bool(service) != (kind == "sentinel"):
        raise AddressError(EXPECTED_URL)
    if database:
        parts[0]["db"] = int(database)
    return _address(kind, nodes, parts[0], tls=base == "rediss", service=service)


def from_params(params: Mapping[str, Any], environ: Mapping[str, str]) -> Address:
    """Read LiteLLM's `cache_params`: a `url`, or `host` and the like, `redis_startup_nodes` or `sentinel_nodes`.

    Where the parameters name no place, ``REDIS_URL`` or ``REDIS_HOST`` does; ``REDIS_PORT`` and the like stand in for
    what is left out.

    Raises:
        ImportError: redis-py is not installed.
        AddressError: They are wrong; the message shows nothing of them.
    """
    given = {name: value for name, value in params.items() if value is not None}
    if not given.keys() & {"url", "host", "redis_startup_nodes", "sentinel_nodes"} and "REDIS_URL" in environ:
        given["url"] = environ["REDIS_URL"]
    for name in ("host", "port", "username", "password", "db", "ssl"):
        if f"REDIS_{name.upper()}" in environ:
            given.setdefault(name, environ[f"REDIS_{name.upper()}"])
    try:
        return _from_params(given)
    except AddressError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError):
        raise AddressError(EXPECTED_PARAMS) from None


def _from_params(given: Mapping[str, Any]) -> Address:
    options: dict[str, Any] = {name: given[name] for name in ("username", "password", *_TLS) if name in given}
    options |= {name: int(given[name]) for name in ("db", "max_connections") if name in given}
    options |= {name: float(given[name]) for name in ("socket_timeout",) if name in given}
    tls = str(given.get("ssl")).lower() in ("true", "1", "yes")
    if "redis_startup_nodes" in given:
        nodes = [(node["host"], int(node["port"])) for node in given["redis_startup_nodes"]]
        return _address("cluster", nodes, options, tls=tls)
    if "sentinel_nodes" in given:
        nodes = [(host, int(port)) for host, port in given["sentinel_nodes"]]
        asked = {"password": given["sentinel_password"]} if "sentinel_password" in given else {}
        return _address("sentinel", nodes, options, tls=tls, service=given["service_name"], sentinel_options=asked)
    if "url" in given:
        return from_url(given["url"])
    return _address("server", [(given["host"], int(given.get("port", _PORT)))], options, tls=tls)


def _parsed(url: str) -> dict[str, Any]:
    module = _module()
    try:
        return dict(module.parse_url(url))
    except ValueError:
        raise AddressError(EXPECTED_URL) from None


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


def _address(kind: Kind, nodes: Iterable[tuple[str, int]], options: dict[str, Any], **more: Any) -> Address:
    """Make an address, and see that redis-py takes its options.

    Raises:
        AddressError: It does not; or a cluster is to have databases.
    """
    path, most = options.pop("path", ""), options.pop("max_connections", MAX_CONNECTIONS)
    timeout = options.get("socket_timeout", TIMEOUT)
    kept = {name: value for name, value in options.items() if name not in _DECIDED}
    if most < 1 or not timeout > 0:
        raise AddressError("expected at least one connection, and a time limit of more than 0 seconds")
    if kind == "cluster" and kept.pop("db", 0):
        raise AddressError("a cluster has no databases to choose from")
    connection = getattr(_module(), _connection(path, tls=more["tls"]))
    try:
        connection(**kept)
    except TypeError:
        raise AddressError("it has an option that redis-py does not know") from None
    return Address(kind, tuple(nodes), path=path, options=kept, max_connections=most, timeout=timeout, **more)
