"""OpenAI's official clients read streams that a gate ends: what is said, how it finishes, what is raised."""

from __future__ import annotations

import json
import subprocess
from itertools import product

import anyio
import openai
import orjson
import pytest
from openai import OpenAI
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.servers import serve
from tests.services import missing, require
from tests.test_client import Switch

MESSAGES = [{"role": "user", "content": "Hi"}]

# The pieces that the upstream sends of each choice; the hooks below act on the last.
PIECES = ["hel", "lo", "secret"]


def chunk(shape, index, piece, finish_reason=None, **delta):
    """One chunk as OpenAI sends it, with one choice."""
    head = {"id": "c-1", "created": 1, "model": "m"}
    choice = {"index": index, "logprobs": None, "finish_reason": finish_reason}
    if shape == "text":
        return {**head, "object": "text_completion", "choices": [{**choice, "text": piece or ""}]}
    content = {} if piece is None else {"content": piece}
    return {**head, "object": "chat.completion.chunk", "choices": [{**choice, "delta": {**delta, **content}}]}


def upstream(shape, n, *, hangs, said):
    """Streams `n` choices, says so when all but the end has been taken, and then waits for the disconnect or ends."""

    async def app(scope, receive, send):
        await receive()
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def tell(*args, **delta):
            event = b"data: %b\n\n" % orjson.dumps(chunk(shape, *args, **delta))
            await send({"type": "http.response.body", "body": event, "more_body": True})

        for index in range(n):
            await tell(index, "", role="assistant")
        for piece, index in product(PIECES, range(n)):
            await tell(index, piece)
        said.set()
        if hangs:
            assert (await receive())["type"] == "http.disconnect"
            return
        for index in range(n):
            await tell(index, None, "stop")
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    return app


class Hooks(CallHooks):
    """What the tests' callbacks share: the event that the upstream sets when it has spoken."""

    def __init__(self):
        self.said = anyio.Event()


class Message(Hooks):
    """Lets the secret be masked, and refuses with a message when everything has been said."""

    async def async_moderation_hook(self, data):
        await self.said.wait()
        return "no, \u2028\n🦊"

    async def async_post_call_streaming_hook(self, response):
        return response.replace("secret", "")


class Raises(Hooks):
    """Ends the stream at the secret with an exception."""

    exc: Exception = HTTPException(
        403,
        {"error": {"message": "no", "code": "blocked", "param": "p", "type": "policy"}},  # type: ignore[arg-type]
    )

    async def async_post_call_streaming_hook(self, response):
        if response == "secret":
            raise self.exc


class Crashes(Raises):
    """Ends the stream at the secret with a crash."""

    exc = RuntimeError("of the hook")


class Returns(Hooks):
    """An iterator hook that returns at the secret."""

    async def async_post_call_streaming_iterator_hook(self, response):
        while "secret" not in str(chunk := await anext(response)):
            yield chunk


class Holds(Hooks):
    """Masks the secret with a look-ahead that still holds all of the text when the upstream finishes."""

    streaming_window = 100

    async def async_post_call_streaming_hook(self, response):
        return response.replace("secret", "***")


# Hooks, whether the upstream waits to be told; what each choice says and how it finishes; what the client raises.
ENDS = {
    "message": (Message, True, "hellono, \u2028\n🦊", "content_filter", None),
    "exception": (Raises, True, "hello", None, ("no", "blocked", "p", "policy")),
    "crash": (Crashes, True, "hello", None, ("Internal server error", "internal_error", None, "internal_server_error")),
    "early return": (Returns, True, "hello", "stop", None),
    "window": (Holds, False, "hello***", "stop", None),
}

ends = pytest.mark.parametrize(("hooks", "hangs", "content", "finish_reason", "error"), ENDS.values(), ids=ENDS)
choices = pytest.mark.parametrize("n", [1, 2])


@pytest.fixture(scope="module")
def switch():
    return Switch()


@pytest.fixture(scope="module")
def url(switch):
    with serve(switch, lifespan="off") as url:
        yield f"{url}/v1"


@pytest.fixture
def gate(switch):
    """Serve a gate with one callback before the upstream."""

    def gate(hooks, shape, n, *, hangs):
        async def app(scope, receive, send):
            callback = hooks()
            inner = upstream(shape, n, hangs=hangs, said=callback.said)
            await LLMGate(inner, callbacks=[callback], moderation_mode="cut")(scope, receive, send)

        switch.app = app

    return gate


def strict(url):
    return OpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=20, _strict_response_validation=True)


def read(stream, parts):
    """Read a stream until it ends; give what was raised."""
    try:
        for chunk in stream:
            parts += [
                (c.index, getattr(c, "text", None) or getattr(c, "delta", c), c.finish_reason) for c in chunk.choices
            ]
    except openai.APIError as exc:
        return exc
    return None


def summed(parts, n):
    """What each choice said, and all finish reasons it was given."""
    said = [""] * n
    finished = [[] for _ in range(n)]
    for index, piece, finish_reason in parts:
        text = piece if isinstance(piece, str) else getattr(piece, "content", None)
        said[index] += text or ""
        finished[index] += [finish_reason] if finish_reason else []
    return said, finished


def raised(exc):
    return exc and (exc.message, exc.code, exc.param, exc.type)


@ends
@choices
def test_chat(gate, url, hooks, hangs, content, finish_reason, error, n):
    """Every choice says what was said before the end, and finishes once; an error is raised with all its fields."""
    gate(hooks, "chat", n, hangs=hangs)
    parts = []
    with strict(url) as client:
        exc = read(client.chat.completions.create(model="m", messages=MESSAGES, n=n, stream=True), parts)
    assert summed(parts, n) == ([content] * n, [[finish_reason] if finish_reason else []] * n)
    assert raised(exc) == error


@ends
@choices
def test_chat_helper(gate, url, hooks, hangs, content, finish_reason, error, n):
    """The client's own helper puts the same together, or raises the same."""
    gate(hooks, "chat", n, hangs=hangs)
    exc = None
    with strict(url) as client, client.chat.completions.stream(model="m", messages=MESSAGES, n=n) as stream:
        try:
            stream.until_done()
        except openai.APIError as caught:
            exc = caught
        final = stream.current_completion_snapshot
    assert [choice.message.content for choice in final.choices] == [content] * n
    assert [choice.finish_reason for choice in final.choices] == [finish_reason] * n
    assert raised(exc) == error


def test_chat_helpers_final_completion(gate, url):
    """The helper takes a message behind what was said for what its finish reason says, and has its text at hand."""
    gate(Message, "chat", 1, hangs=True)
    with strict(url) as client, client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        with pytest.raises(openai.ContentFilterFinishReasonError):
            stream.get_final_completion()
        assert stream.current_completion_snapshot.choices[0].message.content == ENDS["message"][2]


@ends
@choices
def test_text(gate, url, hooks, hangs, content, finish_reason, error, n):
    """Text completions end in the same ways; of OpenAI's own the strict client would refuse the null finish reasons."""
    gate(hooks, "text", n, hangs=hangs)
    parts = []
    with OpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=20) as client:
        exc = read(client.completions.create(model="m", prompt="Hi", n=n, stream=True), parts)
    assert summed(parts, n) == ([content] * n, [[finish_reason] if finish_reason else []] * n)
    assert raised(exc) == error


SCRIPT = r"""
import OpenAI from "openai";
import readline from "node:readline";
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { url, how, n } = JSON.parse(line);
  const client = new OpenAI({ baseURL: url, apiKey: "sk-x", maxRetries: 0, timeout: 20000 });
  const said = Array(n).fill(""), finished = Array.from({ length: n }, () => []);
  let error = null;
  const take = (chunk) => {
    for (const choice of chunk.choices) {
      said[choice.index] += choice.text ?? choice.delta.content ?? "";
      if (choice.finish_reason) finished[choice.index].push(choice.finish_reason);
    }
  };
  try {
    const messages = [{ role: "user", content: "Hi" }], asked = { model: "m", n, stream: true };
    if (how === "text") {
      for await (const chunk of await client.completions.create({ ...asked, prompt: "Hi" })) take(chunk);
    } else if (how === "raw") {
      for await (const chunk of await client.chat.completions.create({ ...asked, messages })) take(chunk);
    } else {
      const final = await client.chat.completions.stream({ model: "m", messages, n }).finalChatCompletion();
      for (const choice of final.choices) take({ choices: [{ ...choice, delta: choice.message }] });
    }
  } catch (exc) {
    error = [exc.error?.message ?? exc.message, exc.code ?? null, exc.param ?? null, exc.type ?? null];
  }
  console.log(JSON.stringify({ said, finished, error }));
}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """The official client in node: gives what it read of one stream."""
    require("node", "npm")
    folder = tmp_path_factory.mktemp("node")
    script = folder / "ask.mjs"
    script.write_text(SCRIPT)
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, "openai@6"], capture_output=True, timeout=100
    )
    if install.returncode:  # pragma: no cover  # where the registry can't be reached
        missing(f"NOT RUN: npm install openai failed: {install.stderr.decode()}")
    with subprocess.Popen(
        ["node", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:

        def ask(**what):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask


@ends
@choices
@pytest.mark.parametrize("how", ["raw", "helper", "text"])
def test_node(node, gate, url, hooks, hangs, content, finish_reason, error, n, how):
    """The client in node reads every end as the one in Python does, raw and through its helper."""
    gate(hooks, "text" if how == "text" else "chat", n, hangs=hangs)
    got = node(url=url, how=how, n=n)
    assert got["error"] == (list(error) if error else None)
    if how != "helper" or not error:
        assert got["said"] == [content] * n
        assert got["finished"] == [[finish_reason] if finish_reason else []] * n
