"""The servers that are measured, and how each is run."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import yaml

from benchmarks.load import Target, request
from benchmarks.processes import free_port, serving
from benchmarks.traffic import CALL, STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

KEY = "sk-bench"

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  upstream app {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

# A handler file as it is written for LiteLLM's proxy, which both run.
_HANDLER = """
from litellm.integrations.custom_logger import CustomLogger


class Rewrite(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        data["model"] = "gpt-4o"
        return data


class RewriteText(Rewrite):
    async def async_post_call_streaming_hook(self, user_api_key_dict, response):
        return response.replace("parcel", "package")


rewrite = Rewrite()
rewrite_text = RewriteText()
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up.

    Attributes:
        pid: Its process.
        port: Where it listens.
        path: The path of its chat completions.
        headers: What it wants to be sent.
    """

    pid: int
    port: int
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {KEY}"),)

    def target(self, *, streamed: bool) -> Target:
        """Return where calls go that are answered whole, or as streams."""
        body = STREAM.body if streamed else CALL.body
        return Target(self.port, request(self.path, body, **dict(self.headers)))


class Subject(Protocol):
    """Runs a server on a core, before an upstream's port."""

    def __call__(self, core: int, upstream: int) -> AbstractContextManager[Running]:
        """Run it."""
        ...


def in_uvicorn(name: str, *, factory: bool = False) -> Subject:
    """Make a subject of an app of `benchmarks.upstream`."""

    @contextmanager
    def run(core: int, upstream: int) -> Iterator[Running]:
        port = free_port()
        app = ["--factory"] * factory + [f"benchmarks.upstream:{name}", "--port", str(port)]
        quiet = ["--no-access-log", "--log-level", "warning"]
        env = {"UPSTREAM_URL": f"http://127.0.0.1:{upstream}/v1"}
        with serving([sys.executable, "-m", "uvicorn", *app, *quiet], port, core=core, env=env) as pid:
            yield Running(pid, port)

    return run


def nginx_config(folder: str, port: int, upstream: int) -> str:
    """Write a configuration of nginx as a reverse proxy that streams, all files in a folder."""
    return _NGINX.format(folder=folder, port=port, upstream=upstream)


def nginx() -> str | None:
    """Return where nginx is, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def in_nginx(core: int, upstream: int) -> Iterator[Running]:
    """Run nginx as a reverse proxy."""
    port = free_port()
    with TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(nginx_config(folder, port, upstream))
        with serving([nginx() or "nginx", "-p", folder, "-c", config], port, core=core) as pid:
            yield Running(pid, port)


def write_config(folder: str, callback: str, upstream: int) -> Path:
    """Write a configuration for the gate's command line and for LiteLLM's proxy, with the handler beside it."""
    entry = {"model": "openai/gpt-4o", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "sk-upstream"}
    models = [{"model_name": name, "litellm_params": entry} for name in ("gpt-4o", "gpt-4o-mini")]
    config = {
        "model_list": models,
        "litellm_settings": {"callbacks": f"handler.{callback}"},
        "general_settings": {"master_key": KEY},
    }
    Path(folder, "handler.py").write_text(_HANDLER)
    file = Path(folder, "config.yaml")
    file.write_text(yaml.safe_dump(config))
    return file


def by_command_line(callback: str) -> Subject:
    """Make a subject of the gate's own server, with one of the handlers."""

    @contextmanager
    def run(core: int, upstream: int) -> Iterator[Running]:
        port = free_port()
        program = [sys.executable, "-c", "from asgi_llm_gate.cli import main; main()"]
        with TemporaryDirectory() as folder:
            config = write_config(folder, callback, upstream)
            command: list[str | Path] = [*program, "--config", config, "--port", str(port)]
            with serving(command, port, core=core) as pid:
                yield Running(pid, port)

    return run
