"""The command line, as a process of its own over real sockets."""

from __future__ import annotations

import logging
import re
import signal
import socket
import sys
import threading
from contextlib import suppress

import anyio
import anyio.to_thread
import httpx
import openai
import pytest

from asgi_llm_gate import serving
from asgi_llm_gate.cli import main
from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.gate import LLMGate
from tests.commandline import command, run
from tests.commandline import serving as serving_process
from tests.servers import serve

HANDLER = """
class Handler:
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        data["messages"][-1]["content"] += "!"

handler = Handler()
"""


@pytest.fixture
def config(tmp_path):
    """Write a config for an upstream, and give its path."""

    def write(url, settings=""):
        (tmp_path / "shouting.py").write_text(HANDLER)
        path = tmp_path / "config.yaml"
        path.write_text(
            "model_list:\n"
            f"  - {{model_name: '*', litellm_params: {{model: '*', api_base: '{url}/v1', api_key: sk-upstream}}}}\n"
            "litellm_settings: {callbacks: shouting.handler}\n" + settings
        )
        return path

    return write


def client_of(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0, _strict_response_validation=True)


def ask(url, content="hello"):
    with client_of(url) as client:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content


def test_a_configuration_is_served(config):
    """Calls go through the config's hooks to its upstream; what is covered and where it serves is said, and no more."""
    with serve(EchoModel(pause=0)) as upstream:
        path = config(upstream)
        with serving_process(command("--config", path, "--port", "0")) as server:
            assert ask(server.url) == "hello!"
    assert server.lines == [f"Serving {path} on {server.url}\n"]
    assert server.output == ""
    assert re.search(r"/chat/completions +Handler", server.errors)
    assert server.status == 0
    assert "POST" not in server.errors


def test_a_configuration_is_served_by_several_processes(config):
    """With workers the same is served, and one signal to the first process ends all."""
    with serve(EchoModel(pause=0)) as upstream:
        path = config(upstream)
        with serving_process(command("--config", path, "--port", "0", "--workers", "2")) as server:
            assert ask(server.url) == "hello!"
    assert server.status == 0
    assert server.errors.count("What is covered") == 1


def test_the_configuration_may_stand_in_the_environment(config):
    """Without --config the file that the environment variable names is served."""
    with serve(EchoModel(pause=0)) as upstream:
        env = {"ASGI_LLM_GATE_CONFIG": str(config(upstream))}
        with serving_process(command("--port", "0"), env=env) as server:
            assert ask(server.url) == "hello!"


class SlowModel:
    """Streams one event, then waits to be released before it ends the stream."""

    def __init__(self):
        self.release = threading.Event()

    async def __call__(self, scope, receive, send):
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        async with anyio.create_task_group() as group:

            async def stop_with_the_client():
                await receive()
                group.cancel_scope.cancel()

            group.start_soon(stop_with_the_client)
            await anyio.to_thread.run_sync(self.release.wait, abandon_on_cancel=True)
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            group.cancel_scope.cancel()


def streamed(url):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    return httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_streams_finish(config, number):
    """After a signal new connections are refused, an open stream goes on to its end, and the exit status is 0."""
    model = SlowModel()
    with (
        serve(model, lifespan="off") as upstream,
        serving_process(command("--config", config(upstream), "--port", "0")) as server,
    ):
        with streamed(server.url) as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"data: 1\n\n"
            server.stop(number)
            until_refused(server.url)
            model.release.set()
            assert b"".join(chunks) == b"data: [DONE]\n\n"
        server.process.wait(30)
    assert server.status == 0
    assert "Traceback" not in server.errors


def test_a_stream_that_does_not_end_is_cut(config):
    """A stream still open `shutdown_timeout` after a signal is broken off, and the exit status is still 0."""
    model = SlowModel()
    with (
        serve(model, lifespan="off") as upstream,
        serving_process(
            command("--config", config(upstream, "gate_settings: {shutdown_timeout: 0.2}"), "--port", "0")
        ) as server,
        streamed(server.url) as response,
    ):
        chunks = response.iter_raw()
        next(chunks)
        server.stop(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
        server.process.wait(30)
    model.release.set()
    assert server.status == 0


def until_refused(url):
    """Connect until the server listens no more."""
    address = httpx.URL(url)
    with suppress(ConnectionError):
        while True:
            socket.create_connection((address.host, address.port), timeout=5).close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_ends_the_command(config, workers):
    """When the upstream's client can't be made, the command says why and ends with uvicorn's status for that."""
    path = config("http://127.0.0.1:9")
    done = run("--config", path, "--port", "0", "--workers", workers, SSL_CERT_FILE="/no/such/file")
    assert done.returncode == 3
    assert "No such file" in done.stderr


MISTAKES = {
    "a file that is not there": (None, "No such file or directory"),
    "a file that is not YAML": ("a: [", "config.yaml: line"),
    "no list of models": ("general_settings: {enforce_user_param: true}", "model_list"),
    "a callback that is not there": ("litellm_settings: {callbacks: nowhere.handler}", "litellm_settings.callbacks"),
    "a setting of the wrong kind": ("gate_settings: {hook_timeout: soon}", "gate_settings.hook_timeout"),
    "an unset variable": ("general_settings: {master_key: os.environ/NO_SUCH_KEY}", "NO_SUCH_KEY is not set"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_configuration_is_one_line(name, tmp_path):
    """Nothing is served: one line on standard error says what is wrong, and the exit status is 2."""
    content, told = MISTAKES[name]
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    done = run("--config", path, "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check_finds_the_same_mistakes(tmp_path):
    """`check` says in one line what is wrong, with exit status 2, and asks for no models."""
    path = tmp_path / "config.yaml"
    path.write_text("gate_settings: {hook_timeout: soon}")
    done = run("check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    path.write_text("gate_settings: {hook_timeout: 3}")
    assert run("check", path).returncode == 0


def test_check_tells_what_is_covered(config):
    """`check` prints a table of the calls that hooks look into, and of those that none does."""
    done = run("check", config("http://127.0.0.1:9", "general_settings: {enforce_user_param: true, mater_key: x}"))
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["completion", "/chat/completions", "Handler", "-", "-", "-", "-", "-", "user"] in lines
    assert ["invocations", "deny", "/invocations"] in lines
    assert "did you mean master_key?" in done.stderr


def test_check_tells_what_of_litellms_file_is_not_served(config):
    """`check` lists each key with what there is instead; a file of the gate's own has no such list."""
    done = run("check", config("http://127.0.0.1:9", "router_settings: {num_retries: 3}"))
    assert done.returncode == 0
    *_, title, models, callbacks, router = [line.split() for line in done.stdout.splitlines()]
    assert (title, models) == (["LITELLM'S", "KEY", "SERVED", "INSTEAD"], ["model_list", "yes"])
    assert callbacks == ["litellm_settings.callbacks", "yes"]
    assert router[:4] == ["router_settings", "no", "a", "call"]
    path = config("http://127.0.0.1:9")
    path.write_text("gate_settings: {hook_timeout: 3}")
    assert "LITELLM" not in run("check", path).stdout


def test_handlers_find_a_files_own_variables(config):
    """In a process that is the gate's own they are the environment's."""
    path = config("http://127.0.0.1:9", "environment_variables: {THE_WORD: hello, THE_KEY: os.environ/THE_WORD}")
    path.with_name("shouting.py").write_text(f"import os\nassert os.environ['THE_WORD'] == 'hello'\n{HANDLER}")
    assert run("check", path).returncode == 0
    path.write_text(path.read_text().replace("THE_WORD: hello, ", ""))
    assert "KeyError: 'THE_WORD'" in run("check", path).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Give a --config"),
        (["--port", "1", "demo"], "--port stands before demo"),
        (["check"], "Missing argument"),
        (["try", "config.yaml"], "Missing argument"),
        (["--port", "70000"], "70000"),
        (["--workers", "0"], "--workers"),
        (["serve"], "No such command"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments, told):
    """What can't be meant is told, with exit status 2."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_taken_address_is_told():
    """Where another server listens, one line says so, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("demo", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: can't serve on 127.0.0.1:{port}: Address already in use")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["click", "uvicorn"])
def test_without_the_server_extra_one_line_says_so(missing, monkeypatch, capsys):
    """Without the libraries of the extra the command line says what to install, with exit status 2."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"asgi-llm-gate needs {missing}: pip install 'asgi-llm-gate[server]'\n"


@pytest.fixture
def logging_restored():
    """Put the gate's logger back to what it was."""
    logger = logging.getLogger("asgi_llm_gate")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.usefixtures("logging_restored")
def test_a_worker_makes_the_app_of_the_file_in_its_environment(config, monkeypatch):
    """A worker process needs nothing but the variable."""
    monkeypatch.setenv("ASGI_LLM_GATE_CONFIG", str(config("http://127.0.0.1:9")))
    app = serving.worker()
    assert isinstance(app, LLMGate)
    assert [type(callback).__name__ for callback in app.settings.callbacks] == ["Handler"]


def test_the_url_of_an_ipv6_server_has_brackets():
    """An address with colons is bound as IPv6, and its URL is one that clients can read."""
    if not socket.has_ipv6:  # pragma: no cover  # a machine without IPv6
        pytest.skip("this machine has no IPv6")
    with serving.listen("::1", 0) as listener:
        assert serving.url(listener) == f"http://[::1]:{listener.getsockname()[1]}"
