"""The gate in front of LiteLLM's own proxy, with the handler and the configuration that the proxy has too."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager

import httpx

from tests.commandline import ROOT, serving
from tests.services import missing

# A Python that has `litellm[proxy]`, and what the gate itself needs.
PYTHON = os.environ.get("LLM_GATE_LITELLM_PROXY_PYTHON", "")

HANDLER = """
from litellm.integrations.custom_logger import CustomLogger


class Handler(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if "Hello world" in data["messages"][0]["content"]:
            return "This is an invalid response"
        return data


handler = Handler()
"""

CONFIG = """
model_list: [{model_name: m, litellm_params: {model: openai/m, api_key: sk-unused, mock_response: good day}}]
litellm_settings: {callbacks: hooks.handler}
"""

APPS = """
from asgi_llm_gate import LLMGate
from litellm.proxy.proxy_server import app

gated = LLMGate(app, config=%r)
"""


@contextmanager
def proxy(folder, name):  # pragma: no cover  # as all below: only with LiteLLM's proxy
    """Serve the proxy alone (`app`), or behind the gate (`gated`)."""
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    (folder / "hooks.py").write_text(HANDLER)
    (folder / "apps.py").write_text(APPS % str(config))
    env = {
        "CONFIG_FILE_PATH": str(config),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
    }
    python = PYTHON or missing("NOT RUN: LiteLLM's proxy, because LLM_GATE_LITELLM_PROXY_PYTHON is not set")
    argv = [python, "-m", "uvicorn", "--port", "0", f"apps:{name}"]
    with serving(argv, url_in="stderr", env=env) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def ask(client, content, **fields):  # pragma: no cover
    call = {"model": "m", "messages": [{"role": "user", "content": content}], **fields}
    return client.post("/v1/chat/completions", json=call)


def words(stream):  # pragma: no cover
    *events, done = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
    assert done == "[DONE]"
    return "".join(choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"])


def test_the_gate_makes_the_string_an_answer_again(tmp_path):  # pragma: no cover
    """What the handler returns is an error from the proxy alone, and the answer behind the gate; other calls pass."""
    with proxy(tmp_path, "app") as client:
        assert [ask(client, "Hello world", stream=stream).status_code for stream in (False, True)] == [400, 400]
    with proxy(tmp_path, "gated") as client:
        refused = ask(client, "Hello world")
        assert refused.status_code == 200
        assert refused.json()["choices"][0]["message"]["content"] == "This is an invalid response"
        assert words(ask(client, "Hello world", stream=True)) == "This is an invalid response"
        assert ask(client, "good morning").json()["choices"][0]["message"]["content"] == "good day"
        assert words(ask(client, "good morning", stream=True)) == "good day"
        assert client.get("/health/liveliness").status_code == 200
