"""The three handlers of LiteLLM's page on call hooks, in front of real apps and as a server, asked as the page asks."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from django.http import JsonResponse
from django.urls import path as django_path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_llm_gate import LLMGate
from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.serving import gate
from tests.commandline import command, serving
from tests.hosts import DjangoHandler, django_setup
from tests.servers import serve

HANDLERS = Path(__file__).parent / "handlers"

# How the page's own curls label their bodies, and how clients do that label nothing.
LABELS = {"curl": {"content-type": "application/x-www-form-urlencoded"}, "nothing": {}}


def said(content, **fields):
    return {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": content}],
        "user": "ishaan-app",
        **fields,
    }


async def django_chat(request):
    data = json.loads(request.body)
    return JsonResponse(
        {"model": data["model"], "choices": [{"message": {"content": data["messages"][-1]["content"]}}]}
    )


def starlette_app(config):
    app = Starlette(routes=[Mount("/", EchoModel(pause=0))])
    app.add_middleware(LLMGate, config=config)
    return app


def fastapi_app(config):
    app = FastAPI()
    app.mount("/", EchoModel(pause=0))
    app.add_middleware(LLMGate, config=config)
    return app


def django_app(config):
    django_setup()
    return LLMGate(DjangoHandler([django_path("chat/completions", django_chat)]), config=config)


APPS = {"Starlette": starlette_app, "FastAPI": fastapi_app, "Django": django_app, "Forwarder": gate}
HOSTS = [*((name, http) for name in APPS for http in ("h11", "httptools")), ("command line", "httptools")]


@pytest.fixture(params=HOSTS, ids=lambda host: "-".join(host))
def host(request, tmp_path):
    """Return a context manager that serves one of the page's handlers, and yields the URL."""
    name, http = request.param

    @contextmanager
    def served(handler):
        shutil.copy(HANDLERS / f"{handler}.py", tmp_path)
        with serve(EchoModel(pause=0)) as upstream:
            params = {"model": "*", "api_base": f"{upstream}/v1"}
            content = {
                "model_list": [{"model_name": "*", "litellm_params": params}],
                "litellm_settings": {"callbacks": f"{handler}.handler"},
                "general_settings": {"enforce_user_param": True},
            }
            config = tmp_path / "config.yaml"
            config.write_bytes(orjson.dumps(content))
            if name == "command line":
                with serving(command("--config", config, "--port", "0")) as server:
                    yield server.url
            else:
                with serve(APPS[name](config), http=http) as url:
                    yield url

    return served


def ask(url, body, label="curl"):
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return httpx.post(f"{url}/chat/completions", content=content, headers=LABELS[label])


@pytest.mark.parametrize("label", LABELS)
def test_calls_are_sent_to_another_model(host, label):
    with host("rewriting") as url:
        answer = ask(url, said("good morning good sir", temperature=0.2), label)
    assert (answer.status_code, answer.json()["model"]) == (200, "the-house-model")
    assert answer.json()["choices"][0]["message"]["content"] == "good morning good sir"


def test_moderation_refuses_beside_the_call(host):
    with host("moderating") as url:
        refused, passed = ask(url, said("hello world")), ask(url, said("Hello world"))
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "Not in this house"
    assert (passed.status_code, passed.json()["model"]) == (200, "the-house-model")


@pytest.mark.parametrize("label", LABELS)
def test_a_rejected_message_is_a_normal_answer(host, label):
    with host("refusing") as url:
        whole, streamed = ask(url, said("Hello world"), label), ask(url, said("Hello world", stream=True), label)
    assert whole.status_code == streamed.status_code == 200
    assert whole.json()["choices"][0]["message"]["content"] == "This house does not greet worlds"
    *events, done, rest = streamed.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == "This house does not greet worlds"


def test_what_the_page_has_that_is_not_json_is_refused(host):
    """Its second and third request end in a comma before the bracket."""
    with host("refusing") as url:
        answer = ask(url, b'{ "model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello world"}], }')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_call_without_a_user_is_refused(host):
    with host("rewriting") as url:
        answer = ask(url, {**said("good morning"), "user": " "})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user")
