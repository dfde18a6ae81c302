"""The examples, served as their comments say and called with the official client."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module

import httpx
import openai
import pytest

from asgi_llm_gate.demo.echo import EchoModel
from tests.commandline import ROOT, command, run, serving
from tests.servers import SERVERS, serve

CONFIG = ROOT / "examples" / "litellm_config" / "config.yaml"
UVICORN = [sys.executable, "-m", "uvicorn", "--port", "0"]


@contextmanager
def starlette_app():
    with serving([*UVICORN, "examples.starlette_app:app"], url_in="stderr") as server:
        yield server.url


@contextmanager
def starlette_script():
    with serving([sys.executable, "examples/starlette_app.py", "0"], url_in="stderr") as server:
        yield server.url


@contextmanager
def django_asgi():
    with serving([*UVICORN, "examples.django_asgi:application"], url_in="stderr") as server:
        yield server.url


@contextmanager
def fastapi_app():
    with serve(import_module("examples.fastapi_app").app) as url:
        yield url


@contextmanager
def litestar_app():
    with SERVERS["granian"](import_module("examples.litestar_app").app) as url:
        yield url


@contextmanager
def quart_app():
    with SERVERS["hypercorn"](import_module("examples.quart_app").app) as url:
        yield url


@contextmanager
def bare_proxy():
    with (
        serve(EchoModel(pause=0)) as upstream,
        serving(
            [*UVICORN, "examples.bare_proxy:app"], url_in="stderr", env={"UPSTREAM_URL": f"{upstream}/v1"}
        ) as server,
    ):
        yield server.url


@contextmanager
def litellm_config():
    with (
        serve(EchoModel(pause=0)) as upstream,
        serving(command("--config", CONFIG, "--port", "0"), env={"UPSTREAM_URL": f"{upstream}/v1"}) as server,
    ):
        yield server.url


# Each example, the model its handler asks for, and what is said to "good morning", whole and streamed.
EXAMPLES = {
    starlette_app: (
        "gpt-3.5-turbo",
        "Be polite. You said: good morning (checked)",
        "Be polite. You said: good morning",
    ),
    starlette_script: (
        "gpt-3.5-turbo",
        "Be polite. You said: good morning (checked)",
        "Be polite. You said: good morning",
    ),
    fastapi_app: ("my-new-model", "You said: good morning", "You said: good morning"),
    litestar_app: ("my-new-model", "You said: good morning", "You said: good morning"),
    quart_app: ("my-new-model", "You said: good morning", "You said: good morning"),
    bare_proxy: ("my-new-model", "good morning", "good morning"),
    django_asgi: ("my-new-model", "You said: good morning", "You said: good morning"),
    litellm_config: ("my-new-model", "good morning", "good morning"),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_an_example_does_what_it_says(example):
    """Calls are changed, rejected and refused for want of a user, streamed and not."""
    model, whole, streamed = EXAMPLES[example]
    with (
        example() as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0, _strict_response_validation=True) as client,
    ):

        def ask(content, **options):
            messages = [{"role": "user", "content": content}]
            return client.chat.completions.create(model="gpt-3.5-turbo", messages=messages, **options)

        answer = ask("good morning", user="me")
        assert (answer.model, answer.choices[0].message.content) == (model, whole)
        assert ask("Hello world", user="me").choices[0].message.content == "This is an invalid response"
        for heard, said in (("good morning", streamed), ("Hello world", "This is an invalid response")):
            chunks = list(ask(heard, user="me", stream=True))
            assert len(chunks) > 2
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
        with pytest.raises(openai.BadRequestError) as refused:
            ask("good morning")
        assert refused.value.param == "user"


PAGES_BESIDE = [starlette_app, fastapi_app, litestar_app, quart_app, bare_proxy, django_asgi]


@pytest.mark.parametrize("example", PAGES_BESIDE, ids=lambda example: example.__name__)
def test_other_routes_of_an_example_are_untouched(example):
    """What is no LLM call passes by the gate."""
    with example() as url:
        assert httpx.get(f"{url}/health").json() == {"ok": True}


def test_the_moderation_example_refuses():
    """The dict that the handler raised is the message that the client reads."""
    with litellm_config() as url, openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="Violated content safety policy"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello world"}], user="me")
        assert client.embeddings.create(model="m", input="good morning", user="me").model == "my-new-model"


def test_the_litellm_configuration_is_told_by_check():
    """`check` shows its three handlers in their order."""
    done = run("check", CONFIG, UPSTREAM_URL="http://127.0.0.1:9/v1")
    assert done.returncode == 0
    assert "GreetingFilter, ModelSwitch  FirstMessageCheck  ModelSwitch" in done.stdout
