"""One suite for every host and server: the gate in each kind of host, on each server, does the same."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest

from tests.harness import CHAT
from tests.servers import SERVERS
from tests.stages import HOSTS, PREFIXES, SECONDS, WITHOUT_LIFESPAN, Stage

# Every host on one server, and on each other server some hosts that are at home there. On trio neither Django's handler
# nor Quart runs: both are asyncio's.
PAIRS = [
    *((host, "h11") for host in HOSTS),
    *(("starlette", server) for server in SERVERS if server != "h11"),
    ("django", "httptools"),
    ("quart", "hypercorn"),
    ("bare", "hypercorn-trio"),
    ("litestar", "hypercorn-trio"),
    ("django", "granian"),
    ("litestar", "granian"),
]

# Where a proxy before the server takes a prefix away. uvicorn puts it back into the path, hypercorn and granian do not.
PAIRS_UNDER_A_ROOT = [("fastapi", server) for server in SERVERS]
ROOT_PATH = "/llm"


@dataclass
class Served:
    """A host, served, and its client."""

    stage: Stage
    client: httpx.Client
    prefix: str

    def post(self, path, **content):
        return self.client.post(self.prefix + path, **content)

    def stream(self, **fields):
        return self.client.stream("POST", self.prefix + CHAT, json=call(**fields))


CASES: dict[str, tuple[str, Any]] = {
    **{f"{host} on {server}": (host, SERVERS[server]) for host, server in PAIRS},
    **{
        f"{host} on {server} with a root_path": (host, partial(SERVERS[server], root_path=ROOT_PATH))
        for host, server in PAIRS_UNDER_A_ROOT
    },
}


@pytest.fixture(scope="module", params=CASES)
def running(request):
    """A host on a server, for all tests of the module."""
    host, serve = CASES[request.param]
    stage = Stage()
    with (
        serve(HOSTS[host](stage)) as base_url,
        httpx.Client(base_url=base_url, trust_env=False, timeout=SECONDS) as client,
    ):
        yield Served(stage, client, PREFIXES.get(host, ""))


@pytest.fixture
def served(running):
    running.stage.reset()
    return running


def call(model="m", **fields):
    return {"model": model, "messages": [{"role": "user", "content": "é"}], "user": "u", **fields}


def test_rewrites_reach_handler_and_client(served):
    """The handler gets the request as a hook left it, and the client the answer as another did."""
    response = served.post(CHAT, json=call())
    assert response.status_code == 200
    assert response.json()["data"] == call("rewritten from m")
    assert response.json()["after"] == "rewritten from m"
    assert response.headers["content-length"] == str(response.num_bytes_downloaded)


def test_string_refuses_with_an_answer(served):
    """The hook's words are the model's answer, in one piece or streamed."""
    answer = served.post(CHAT, json=call("no")).json()
    assert answer["choices"][0]["message"]["content"] == "This isn't for me."
    stream = served.post(CHAT, json=call("no", stream=True))
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b'"content":"This isn\'t for me."' in stream.content
    assert stream.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_the_apps_own_errors_are_its_own(served, stream):
    """What a handler of the framework raises, the framework renders, and the status reaches the client."""
    response = served.post(CHAT, json=call("teapot", stream=stream))
    assert response.status_code == 418
    assert b"not for you" not in response.content


@pytest.mark.parametrize("stream", [True, False])
def test_exceptions_are_told_in_the_envelope(served, stream):
    """A hook's HTTPException keeps status, headers and message, and is not the framework's to render."""
    response = served.post(CHAT, json=call("forbidden", stream=stream))
    assert (response.status_code, response.headers["x-why"]) == (403, "policy")
    assert response.json()["error"]["message"] == "not for you"


def test_moderation_refuses(served):
    """A bad verdict of a hook beside the call is the answer, and a stream that had begun is ended."""
    response = served.post(CHAT, json=call("slow no, endless", stream=True))
    assert (response.status_code, response.json()["error"]["message"]) == (400, "unfit")
    assert served.stage.ended.wait(SECONDS)


def test_user_is_enforced(served):
    """A call that does not say who its user is reaches no handler."""
    response = served.post(CHAT, json={**call(), "user": " "})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "user")


def test_as_curl_sends_it(served):
    """curl's own content type and a trailing comma: read as JSON, and refused as bad JSON."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert served.post(CHAT, content=json.dumps(call()), headers=headers).json()["data"]["user"] == "u"
    response = served.post(CHAT, content=b'{"model": "m", "messages": [],}', headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def pieces(event):
    """Return the text of one chunk, given as an event."""
    return json.loads(event.removeprefix("data: "))["choices"][0]["delta"]["content"]


def test_stream_arrives_as_it_is_made(served):
    """The first chunk, as a text hook changed it, is with the client before the app makes the second."""
    with served.stream(stream=True) as response:
        events = (line for line in response.iter_lines() if line)
        assert pieces(next(events)) == "ONE"
        assert not served.stage.ended.is_set()
        served.stage.release.set()
        assert pieces(next(events)) == "TWO"
        assert list(events) == ["data: [DONE]"]


def test_disconnect_reaches_the_app(served):
    """When the client goes, the app's stream is ended."""
    with served.stream(model="endless", stream=True) as response:
        events = response.iter_lines()  # which closes the response when nobody refers to it
        assert pieces(next(events)) == "ONE"
        assert not served.stage.ended.is_set()
    assert served.stage.ended.wait(SECONDS)


def test_disconnect_reaches_a_hook(served):
    """When the client goes before there is any answer, the hook that was at work is cancelled."""
    body = json.dumps(call("think")).encode()
    head = f"POST {served.prefix}{CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    url = served.client.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head + body)
        assert served.stage.began.wait(SECONDS)
        assert not served.stage.ended.is_set()
    assert served.stage.ended.wait(SECONDS)


def test_background_work_is_done(served):
    """What a framework does after its response is done behind the gate too."""
    assert served.post(CHAT, json=call()).status_code == 200
    assert served.stage.background.wait(SECONDS)


def test_context_variables_survive(served):
    """A handler sees what was set outside the gate, and what a pre-call hook set."""
    assert served.post(CHAT, json=call()).json()["vars"] == ["set outside", "set by the hook"]


def test_other_paths_pass(served):
    """The app's own paths take any body; a path that nobody serves is the framework's 404."""
    response = served.post("/hello", content=b"{hi,}", headers={"content-type": "text/plain"})
    assert response.content.strip(b'"') == b"{hi,}!"
    assert served.client.get("/nowhere").status_code == 404
    # A body that nobody reads may have hypercorn close the connection (a race of its own), which httpx would use again.
    assert served.post("/nowhere", json={}, headers={"connection": "close"}).status_code == 404


@pytest.mark.parametrize("case", CASES)
def test_the_hosts_own_life_is_lived(case):
    """The app starts before its first call and shuts down after its last; one that knows no such thing serves too."""
    host, serve = CASES[case]
    stage = Stage()
    life = [] if host in WITHOUT_LIFESPAN else ["up", "down"]
    with serve(HOSTS[host](stage)) as url:
        response = httpx.post(f"{url}{PREFIXES.get(host, '')}{CHAT}", json=call(), timeout=SECONDS)
        assert response.status_code == 200
        assert stage.life == life[:1]
    assert stage.life == life
