"""Guards that ship and ask a server about each call, beside the call."""

from __future__ import annotations

import gc
import logging
from functools import partial

import anyio
import openai
import orjson
import pytest

from asgi_llm_gate import LLMGate
from asgi_llm_gate.builtin import LlamaGuardModerations, OpenAIModerations
from asgi_llm_gate.builtin.openai_moderations import OVERLAP
from asgi_llm_gate.builtin.server import MAX_ANSWER
from asgi_llm_gate.builtin.violation import Verdict, ViolationError
from asgi_llm_gate.config import load_settings
from asgi_llm_gate.demo.echo import EchoModel
from tests.actors import DONE, START, App, Client, Recorder, event, piece, said, told
from tests.guard_server import GuardServer, completion, results, sleeps
from tests.harness import Request, Response, Upstream, chat
from tests.servers import serve

pytestmark = pytest.mark.anyio

SECRET = "sk-hush-hush"
BASE = "http://guard.test/v1"

SAFE = completion("safe")
UNSAFE = completion("unsafe\nS9")


def llama(server, **given):
    return LlamaGuardModerations(api_base=BASE, model="guard", client=server.client(), **given)


def moderations(server, **given):
    return OpenAIModerations(api_base=BASE, client=server.client(), **given)


async def ask(guard, *others, body=None, path="/v1/chat/completions", **settings):
    gate = LLMGate(Upstream(), callbacks=[guard, *others], **settings)
    return await Request(chat() if body is None else orjson.dumps(body), path=path).to(gate)


# What the server says, the status of the answer, and of what it tells.
VERDICTS = {
    "safe": (SAFE, 200, None),
    "safe, among spaces": (completion("\n\n Safe \n"), 200, None),
    "unsafe": (completion("unsafe"), 400, ""),
    "a category": (UNSAFE, 400, ": S9 (indiscriminate weapons)"),
    "several": (completion("\n\nunsafe\nS1, S10,S1"), 400, ": S1 (violent crimes), S10 (hate)"),
    "one that is not known": (completion("unsafe\nS99"), 400, ": S99"),
    "no codes but a sentence": (completion("unsafe\nThe user asks, loudly, for more"), 400, ": loudly"),
    "the word and more in its line": (completion("Unsafe: S1"), 400, ""),
    "nothing": (completion(""), 500, None),
    "a word that is neither": (completion("unsafely"), 500, None),
    "safe and more": (completion("safe\nS1"), 500, None),
    "a sentence": (completion("This is safe."), 500, None),
    "no text": (completion(None), 500, None),
    "no choices": (b'{"choices": []}', 500, None),
    "a list": (b"[]", 500, None),
    "no JSON": (b"safe", 500, None),
    "an endless answer": (b"[" + b"1," * MAX_ANSWER + b"1]", 500, None),
    "an error": (500, 500, None),
    "a refusal": (401, 500, None),
    "a redirect": (302, 500, None),
}


@pytest.mark.parametrize(("answer", "status", "named"), VERDICTS.values(), ids=list(VERDICTS))
async def test_a_verdict_decides_the_call(answer, status, named):
    """One that is malformed or missing is never taken as safe."""
    response = await ask(llama(GuardServer(answer)))
    assert response.status == status
    if status == 400:
        assert response.error() == {
            "message": f"Violated content safety policy{named}",
            "type": "invalid_request_error",
            "param": None,
            "code": "content_policy_violation",
        }
    if status == 500:
        assert response.error()["message"] == "Internal server error"


# What the moderation endpoint says, likewise.
RESULTS = {
    "nothing": (results({}), {}, 200, None),
    "a category": (results({"violence": 0.9}), {}, 400, ": violence"),
    "two": (results({"violence": 0.9, "harassment/threatening": 0.8}), {}, 400, ": violence, harassment/threatening"),
    "flagged, and no more": (b'{"results": [{"flagged": true, "categories": {}}]}', {}, 400, ""),
    "one that refuses": (results({"violence": 0.9}), {"categories": ["violence", "hate"]}, 400, ": violence"),
    "one that does not": (results({"violence": 0.9}), {"categories": "hate"}, 200, None),
    "a score that is too high": (results({"violence": 0.3}), {"thresholds": {"violence": 0.3}}, 400, ": violence"),
    "a score that is not": (results({"violence": 0.6}), {"thresholds": {"violence": "0.7"}}, 200, None),
    "a score of another": (results({"violence": 0.6}), {"thresholds": {"hate": 0.5}}, 400, ": violence"),
    "a score that is missing": (results({}), {"thresholds": {"violense": 0.5}}, 500, None),
    "none of a category that is passed over": (
        results({}),
        {"thresholds": {"violense": 0.5}, "categories": ["hate"]},
        200,
        None,
    ),
    "no result": (b'{"results": []}', {}, 500, None),
    "too many": (results({}, {}), {}, 500, None),
    "no list": (b'{"results": {}}', {}, 500, None),
    "no object": (b'{"results": [1]}', {}, 500, None),
    "no answer": (b"null", {}, 500, None),
    "flags that are none": (b'{"results": [{"flagged": true, "categories": {"hate": 1}}]}', {}, 500, None),
    "a list of flags": (b'{"results": [{"flagged": true, "categories": ["hate"]}]}', {}, 500, None),
    "not flagged and not unflagged": (b'{"results": [{"flagged": null, "categories": {}}]}', {}, 500, None),
    "an error": (503, {}, 500, None),
}


@pytest.mark.parametrize(("answer", "given", "status", "named"), RESULTS.values(), ids=list(RESULTS))
async def test_a_result_of_a_moderation_decides_the_call(answer, given, status, named):
    """By the server's flag, or by the categories and scores that the options name."""
    response = await ask(moderations(GuardServer(answer), **given))
    assert response.status == status
    if status == 400:
        assert response.error()["message"] == f"Violated content safety policy{named}"
        assert response.error()["code"] == "content_policy_violation"


REFUSING = {
    "one that refuses": ("unsafe\nS6,S9", 400),
    "others": ("unsafe\nS6", 200),
    "none at all": ("unsafe", 400),
    "one that is not known": ("unsafe\nS6,S99", 400),
}


@pytest.mark.parametrize(("text", "status"), REFUSING.values(), ids=list(REFUSING))
async def test_only_some_categories_may_refuse(text, status):
    """What is unsafe passes if all that it violates is known, and let through."""
    assert (await ask(llama(GuardServer(completion(text)), refuse=["S9", "S1"]))).status == status


async def test_both_are_asked_as_openais_clients_ask():
    """A POST below the base URL, with a bearer token."""
    server = GuardServer(SAFE, results({}))
    await ask(llama(server, api_key=SECRET))
    await ask(moderations(server, api_key=SECRET))
    assert server.paths == ["/v1/chat/completions", "/v1/moderations"]
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {SECRET}"] * 2
    assert [headers["content-type"] for headers in server.headers] == ["application/json"] * 2
    assert server.bodies == [
        {"model": "guard", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 100},
        {"model": "omni-moderation-latest", "input": ["Hi"]},
    ]


async def test_without_a_key_none_is_sent(monkeypatch):
    """Of the environment's only OpenAI's own server gets one."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = GuardServer(results({}))
    await ask(moderations(server))
    await ask(OpenAIModerations(client=server.client()))
    assert [headers.get("authorization") for headers in server.headers] == [None, f"Bearer {SECRET}"]
    assert server.headers[1]["host"] == "api.openai.com"


def user(text):
    return {"role": "user", "content": text}


def model(text):
    return {"role": "assistant", "content": text}


TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "bombs"}'}}

# A call, and the messages that the guard model gets.
CALLS = {
    "parts": (
        "/v1/chat/completions",
        {"messages": [user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}])]},
        [user("a")],
    ),
    "a system prompt, and a user's twice": (
        "/v1/chat/completions",
        {"messages": [{"role": "system", "content": "s"}, user("a"), user("b")]},
        [user("s\na\nb")],
    ),
    "a tool's call and result": (
        "/v1/chat/completions",
        {
            "tools": [{"type": "function", "function": {"name": "look", "description": "Looks"}}],
            "messages": [
                user("a"),
                {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "they explode"},
            ],
        },
        [user("Looks\na"), model('{"at": "bombs"}'), user("they explode")],
    ),
    "a model that speaks first": (
        "/v1/chat/completions",
        {"messages": [model("Hello"), user("a"), model("b")]},
        [user("Hello\na"), model("b")],
    ),
    "a model that speaks alone": ("/v1/chat/completions", {"messages": [model("Hello")]}, [user("Hello")]),
    "messages that are none": ("/v1/chat/completions", {"messages": ["a", user("b")]}, [user("a\nb")]),
    "prompts": ("/v1/completions", {"prompt": ["a", "b"]}, [user("a\nb")]),
    "inputs": ("/v1/embeddings", {"input": ["a", "b"]}, [user("a\nb")]),
    "items": (
        "/v1/responses",
        {
            "instructions": "s",
            "input": [
                user("a"),
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "r"}]},
                {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c"},
                {"type": "function_call_output", "call_id": "c", "output": "they explode"},
            ],
        },
        [user("s\na"), model("r\n{}"), user("they explode")],
    ),
    "Anthropic's blocks": (
        "/v1/messages",
        {
            "max_tokens": 5,
            "system": "s",
            "messages": [
                user("a"),
                model([{"type": "tool_use", "id": "c", "name": "look", "input": {"at": "bombs"}}]),
                user([{"type": "tool_result", "tool_use_id": "c", "content": "they explode"}]),
            ],
        },
        [user("s\na"), model("at\nbombs"), user("they explode")],
    ),
    "an image": ("/v1/images/generations", {"prompt": "a"}, [user("a")]),
    "speech": ("/v1/audio/speech", {"input": "a", "voice": "v"}, [user("a")]),
    "documents": ("/v1/rerank", {"query": "a", "documents": ["b"]}, [user("a\nb")]),
}


@pytest.mark.parametrize(("path", "body", "messages"), CALLS.values(), ids=list(CALLS))
async def test_a_guard_model_gets_the_text_of_every_endpoint_as_a_conversation(path, body, messages):
    """Of two who take turns, the user first, as guards' chat templates ask for it."""
    server = GuardServer(SAFE)
    assert (await ask(llama(server), body={"model": "m", **body}, path=path)).status == 200
    assert server.bodies[0]["messages"] == messages


async def test_calls_without_text_and_those_that_ask_for_a_moderation_are_not_judged():
    """A guard that refuses them would say nothing that the answer does not."""
    server = GuardServer(UNSAFE)
    for guard in (llama(server), moderations(server)):
        tokens = await ask(guard, body={"model": "m", "input": [1, 2]}, path="/v1/embeddings")
        asked = await ask(guard, body={"input": "bombs"}, path="/v1/moderations", call_type_names="litellm")
        assert (tokens.status, asked.status) == (200, 200)
    assert server.bodies == []


LONG = {
    "turns that fit": (["a" * 40, "b" * 30, "c" * 30], ["a" * 40, "b" * 30, "c" * 30]),
    "the oldest": (["a" * 42, "b" * 30, "c" * 30], ["b" * 30 + "\n" + "c" * 30]),
    "all but the newest": (["a", "b" * 72, "c" * 30], ["c" * 30]),
    "of the newest its middle": (["a", "b", "c" * 60 + "d" * 60], ["c" * 48 + "\n[…]\n" + "d" * 48]),
}


@pytest.mark.parametrize(("said", "kept"), LONG.values(), ids=list(LONG))
async def test_of_a_long_conversation_the_newest_turns_are_kept(said, kept):
    """Whole, but for one that is too long by itself."""
    server = GuardServer(SAFE)
    messages = [speaker(text) for speaker, text in zip((user, model, user), said, strict=True)]
    await ask(llama(server, max_chars=101), body={"messages": messages})
    assert [message["content"] for message in server.bodies[0]["messages"]] == kept
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["user", "assistant", "user"][: len(kept)]


async def test_of_very_many_messages_the_oldest_count_as_one_turn():
    """So that each call takes no longer than its text does."""
    server = GuardServer(SAFE)
    messages = [speaker(str(number)) for number in range(600) for speaker in (user, model)]
    await ask(llama(server), body={"messages": messages})
    first, *others = server.bodies[0]["messages"]
    assert first["content"].split("\n")[:3] == ["0", "0", "1"]
    assert len(others) == 499
    assert others[-1] == model("599")


async def test_a_template_makes_one_message_of_it():
    """What the user writes is not filled in again."""
    server = GuardServer(SAFE)
    template = "{categories}|{conversation}|{other}"
    guard = llama(server, template=template, categories={"V1": "violence", "V2": "theft"})
    await ask(guard, body={"messages": [user("{categories}"), model("b"), user("c")]})
    assert server.bodies[0]["messages"] == [
        user("V1: violence\nV2: theft|user: {categories}\n\nassistant: b\n\nuser: c|{other}")
    ]


async def test_a_template_ships_for_models_that_are_no_guards():
    """It has the categories and the conversation in it, and asks for a verdict that can be read."""
    server = GuardServer(completion("unsafe\nV1"))
    guard = llama(server, template="built-in", categories={"V1": "violence"})
    response = await ask(guard, body={"messages": [user("a")]})
    assert response.error()["message"] == "Violated content safety policy: V1 (violence)"
    (message,) = server.bodies[0]["messages"]
    assert "V1: violence" in message["content"]
    assert "user: a" in message["content"]
    assert "{" not in message["content"]


async def test_a_moderation_judges_all_of_a_long_text():
    """In pieces, each of which begins with the end of the one before, and as many requests as it takes."""
    text = "".join(chr(32 + number % 90) for number in range(20_000))
    server = GuardServer(results(*[{}] * 32), results(*[{}] * 31 + [{"violence": 1}]), results({}))
    guard = moderations(server, max_chars=500)
    response = await ask(guard, body={"messages": [user(text)]})
    first, second = (body["input"] for body in server.bodies)
    assert response.error()["message"] == "Violated content safety policy: violence"
    assert (len(first), len(second)) == (32, 32)
    assert {len(part) for part in first} == {500}
    assert first[0] + "".join(part[OVERLAP:] for part in first[1:] + second) == text[: 500 + 63 * 300]


@pytest.mark.parametrize("length", [1, 499, 500, 501, 800, 801])
async def test_pieces_cover_a_text_of_any_length(length):
    server = GuardServer(results({}, {}), results({}))
    text = "".join(chr(33 + number % 90) for number in range(length))
    await ask(moderations(server, max_chars=500), body={"messages": [user(text)]}, on_hook_error="allow")
    first, *others = server.bodies[0]["input"]
    assert first + "".join(part[OVERLAP:] for part in others) == text
    assert all(OVERLAP < len(part) <= 500 for part in others)


@pytest.mark.parametrize("kind", ["llama", "moderations"])
async def test_failure_and_log_hooks_find_the_verdict(kind):
    """On the exception, as the client's answer has only its text."""
    recorder = Recorder()
    if kind == "llama":
        guard, verdict = llama(GuardServer(completion("unsafe\nS1,S2"))), Verdict(("S1", "S2"))
    else:
        guard = moderations(GuardServer(results({"violence": 0.75})))
        verdict = Verdict(("violence",), {"violence": 0.75})
    await ask(guard, recorder)
    assert [type(failure) for failure in recorder.failures] == [ViolationError] * 2
    assert {id(failure.verdict) for failure in recorder.failures} == {id(recorder.failures[0].verdict)}
    assert recorder.failures[0].verdict == verdict


FAILURES = {
    "an error": 503,
    "no verdict": completion("I can't tell"),
    "no JSON": b"<html>",
    "silence": sleeps,
}


@pytest.mark.virtual_time
@pytest.mark.parametrize("policy", ["reject", "allow"])
@pytest.mark.parametrize("answer", FAILURES.values(), ids=list(FAILURES))
async def test_what_becomes_of_a_call_without_a_verdict_is_the_policys(answer, policy, caplog):
    """The guard's own comes before the gate's; it is logged, without anything secret, and the client learns nothing."""
    start = anyio.current_time()
    other = {"reject": "allow", "allow": "reject"}[policy]
    guard = llama(GuardServer(answer), timeout=3, on_hook_error=policy, api_key=SECRET)
    response = await ask(guard, on_hook_error=other, hook_timeout=2)
    assert response.status == {"reject": 500, "allow": 200}[policy]
    assert b"guard" not in response.body
    logged = [record.getMessage() for record in caplog.records if record.name == "asgi_llm_gate"]
    assert logged == [f"LlamaGuardModerations.async_moderation_hook failed (on_hook_error: {policy})"]
    assert SECRET not in caplog.text
    assert "innards" not in caplog.text
    assert (anyio.current_time() - start >= 3) == (answer is sleeps)


async def test_a_server_that_is_down_is_a_failure_of_the_hook(caplog):
    """Asked with a client of the guard's own."""
    guard = LlamaGuardModerations(api_base="http://127.0.0.1:9/v1", model="guard", api_key=SECRET)
    assert (await ask(guard)).status == 500
    assert (await ask(guard, on_hook_error="reject")).status == 500
    await guard.aclose()
    assert "http://127.0.0.1:9/v1/chat/completions gave no answer: ConnectError" in caplog.text
    assert SECRET not in caplog.text


async def test_an_answer_of_many_parts_may_not_be_endless(caplog):
    """It is read, as the time allows, but not kept."""
    with serve(GuardServer(completion("safe" + " " * 300_000), b"[" + b"1," * MAX_ANSWER + b"1]")) as url:
        guard = LlamaGuardModerations(api_base=f"{url}/v1", model="guard")
        assert [(await ask(guard)).status for _ in range(2)] == [200, 500]
        await guard.aclose()
    assert f"answered with more than {MAX_ANSWER} bytes" in caplog.text


async def test_a_client_that_is_given_stays_its_owners_to_close():
    server = GuardServer(SAFE)
    guard = llama(server)
    await guard.aclose()
    assert (await ask(guard)).status == 200


@pytest.mark.virtual_time
async def test_a_stream_is_held_until_the_verdict():
    """Nothing of it goes out before, and of an unsafe call nothing at all."""
    judged = anyio.Event()

    async def slowly(receive, body):
        await judged.wait()
        return UNSAFE

    app = App(START, piece(event(said("bombs"))), piece(DONE, more=False))
    client = Client(chat(stream=True))
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[llama(GuardServer(slowly), timeout=60)]))
        await anyio.sleep(1)
        assert client.sent == []
        judged.set()
    assert Response(client.sent).status == 400
    assert b"bombs" not in Response(client.sent).body


@pytest.mark.virtual_time
async def test_a_stream_that_flows_is_cut_by_the_verdict():
    """In good form, and the app is told."""
    judged = anyio.Event()

    async def slowly(receive, body):
        await judged.wait()
        return UNSAFE

    app = App(START, piece(event(said("well,"))), told)
    client = Client(chat(stream=True))
    gate = LLMGate(app, callbacks=[llama(GuardServer(slowly), timeout=60)], moderation_mode="cut")
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.sleep(1)
        assert len(client.sent) == 2
        judged.set()
    first, last = Response(client.sent).chunks()
    assert first["choices"][0]["delta"]["content"] == "well,"
    assert last["error"]["message"] == "Violated content safety policy: S9 (indiscriminate weapons)"
    assert last["error"]["code"] == "content_policy_violation"
    assert app.log == ["http.request", "done"]


@pytest.mark.virtual_time
async def test_the_call_is_stopped_by_a_bad_verdict():
    """At once, however long the model would have worked."""
    app = App(told)
    start = anyio.current_time()
    response = await Request(chat()).to(LLMGate(app, callbacks=[llama(GuardServer(UNSAFE))]))
    assert response.status == 400
    assert app.log == ["http.request", "done"]
    assert anyio.current_time() - start < 1


async def test_a_client_that_goes_away_ends_the_question():
    """The guard's server sees its connection close; the connections that are left close with the gate."""
    asked, closed = anyio.Event(), anyio.Event()
    token = anyio.lowlevel.current_token()

    async def listens(receive, body):
        anyio.from_thread.run_sync(asked.set, token=token)
        assert (await receive())["type"] == "http.disconnect"
        anyio.from_thread.run_sync(closed.set, token=token)
        return SAFE

    with serve(GuardServer(SAFE, listens)) as url:
        guard = LlamaGuardModerations(api_base=f"{url}/v1", model="guard", timeout=60)
        assert (await ask(guard)).status == 200
        client = Client(chat())
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, LLMGate(App(told), callbacks=[guard]))
            with anyio.fail_after(10):
                await asked.wait()
                client.gone.set()
                await closed.wait()
        assert client.sent == []
        await guard.aclose()
    gc.collect()  # a connection left open would warn


class TestOverSockets:
    """With the official client, by name in a file, and in front of a real server."""

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_the_official_client_is_told_the_category(self, stream, tmp_path, monkeypatch):
        """Both guards stand in one file with their options, keys among them, and each refuses."""
        monkeypatch.setenv("GUARD_KEY", SECRET)

        async def judge(receive, body):
            if "input" in body:
                return results({"violence": 0.9 if "fight" in body["input"][0] else 0.1})
            return completion("unsafe\nS9" if "bomb" in body["messages"][0]["content"] else "safe")

        guard = GuardServer(judge)
        path = tmp_path / "gate.yaml"
        with serve(guard) as guard_url:
            path.write_text(f"""
litellm_settings:
  callbacks: [llamaguard_moderations, openai_moderations]
callback_settings:
  llamaguard_moderations: {{api_base: "{guard_url}/v1", model: guard, api_key: os.environ/GUARD_KEY}}
gate_settings:
  callback_settings:
    openai_moderations: {{api_base: "{guard_url}/v1/", api_key: os.environ/GUARD_KEY, timeout: 20}}
""")
            with serve(LLMGate(EchoModel(pause=0), config=path)) as url:
                async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client:
                    create = partial(client.chat.completions.create, model="m", stream=stream)
                    for said, named in (("a bomb", "S9 (indiscriminate weapons)"), ("a fight", "violence")):
                        with pytest.raises(openai.BadRequestError) as caught:
                            await create(messages=[user(said)])
                        assert caught.value.code == "content_policy_violation"
                        assert caught.value.body["message"] == f"Violated content safety policy: {named}"
                    answer = await create(messages=[user("a poem")])
                    chunks = [chunk async for chunk in answer] if stream else [answer]
                    assert "poem" in repr(chunks)
        assert {headers["authorization"] for headers in guard.headers} == {f"Bearer {SECRET}"}


def options_of(name, **given):
    return load_settings(None, {"callbacks": name, "callback_settings": {name: given}}).callbacks


GOOD = {"api_base": BASE, "model": "guard"}
LLAMA, OPENAI = "llamaguard_moderations", "openai_moderations"
MISTAKES = {
    "no server": (LLAMA, {"model": "m"}, ".api_base: expected a value, got nothing"),
    "no model": (LLAMA, {"api_base": BASE}, ".model: expected a value, got nothing"),
    "a model that is none": (LLAMA, {**GOOD, "model": " "}, ".model: expected text, got none"),
    "no URL": (
        LLAMA,
        {**GOOD, "api_base": "guard:8000"},
        ".api_base: must be an absolute URL with http:// or https://",
    ),
    "a port that is none": (
        LLAMA,
        {**GOOD, "api_base": "http://h:port"},
        ".api_base: must be an absolute URL with http:// or https://",
    ),
    "a URL of two lines": (
        LLAMA,
        {**GOOD, "api_base": "http://h\n/v1"},
        ".api_base: must be an absolute URL with http:// or https://",
    ),
    "a URL with a password": (
        LLAMA,
        {**GOOD, "api_base": f"http://me:{SECRET}@h/v1"},
        ".api_base: must have no user, no query and no fragment",
    ),
    "a key of two lines": (LLAMA, {**GOOD, "api_key": f"{SECRET}\n"}, ".api_key: is no API key"),
    "a key that is a number": (LLAMA, {**GOOD, "api_key": 1234}, ".api_key: is no API key"),
    "a template of nothing": (LLAMA, {**GOOD, "template": "{categories}"}, ".template: has no {conversation}"),
    "a template as a number": (LLAMA, {**GOOD, "template": 3}, ".template: expected text, got 3"),
    "a list of categories": (LLAMA, {**GOOD, "categories": ["S1"]}, ".categories: expected values by name, got list"),
    "a category of no name": (LLAMA, {**GOOD, "categories": {"S1": 5}}, ".categories.S1: expected text, got 5"),
    "a code as a number": (LLAMA, {**GOOD, "categories": {1: "a"}}, ".categories: expected text, got 1"),
    "a code that is not known": (
        LLAMA,
        {**GOOD, "categories": {"S1": "a", "S2": "b"}, "refuse": ["S3"]},
        ".refuse: expected S1 or S2, got text",
    ),
    "codes as numbers": (LLAMA, {**GOOD, "refuse": [1]}, ".refuse[0]: expected text, got 1"),
    "codes as a mapping": (LLAMA, {**GOOD, "refuse": {}}, ".refuse: expected a name or a list of names, got dict"),
    "too few characters": (LLAMA, {**GOOD, "max_chars": 99}, ".max_chars: expected a number from 100, got 99"),
    "half a character": (LLAMA, {**GOOD, "max_chars": 100.5}, ".max_chars: expected a whole number, got 100.5"),
    "no time": (LLAMA, {**GOOD, "timeout": 0}, ".timeout: expected more than 0 seconds"),
    "a truth as a time": (LLAMA, {**GOOD, "timeout": True}, ".timeout: expected a number from 0, got True"),
    "words as a time": (LLAMA, {**GOOD, "timeout": "soon"}, ".timeout: expected a number from 0, got text"),
    "no end of time": (LLAMA, {**GOOD, "timeout": "inf"}, ".timeout: expected a number from 0, got text"),
    "nothing as a time": (LLAMA, {**GOOD, "timeout": None}, ".timeout: expected a number from 0, got NoneType"),
    "a policy that is none": (
        LLAMA,
        {**GOOD, "on_hook_error": "pass"},
        ".on_hook_error: expected reject or allow, got text",
    ),
    "a client as text": (LLAMA, {**GOOD, "client": "httpx"}, ".client: expected an httpx.AsyncClient, got str"),
    "an option that is none": (OPENAI, {"api_bas": BASE}, ".api_bas: not an option; did you mean api_base?"),
    "OpenAI without a key": (
        OPENAI,
        {},
        ".api_key: expected a value; the environment variable OPENAI_API_KEY is not set",
    ),
    "a score above 1": (
        OPENAI,
        {"api_base": BASE, "thresholds": {"hate": 2}},
        ".thresholds.hate: expected a number from 0 to 1, got 2",
    ),
    "too short a piece": (
        OPENAI,
        {"api_base": BASE, "max_chars": 399},
        ".max_chars: expected a number from 400, got 399",
    ),
}


@pytest.mark.parametrize(("name", "given", "what"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_wrong_option_is_one_line_with_its_path_and_without_secrets(name, given, what, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"\A.*\Z") as caught:
        options_of(name, **given)
    assert str(caught.value) == f"callback_settings.{name}{what}"


def test_numbers_may_come_as_text():
    """As they do from the environment."""
    (guard,) = options_of(LLAMA, **GOOD, timeout="2.5", max_chars="200", refuse="S1", on_hook_error="allow")
    assert (guard.hook_timeout, guard.on_hook_error) == (2.5, "allow")


MOVED = {
    "llamaguard_model_name": "callback_settings.llamaguard_moderations.model, beside its api_base",
    "llamaguard_unsafe_content_categories": "callback_settings.llamaguard_moderations.categories, by their codes",
    "openai_moderations_model_name": "callback_settings.openai_moderations.model",
}


@pytest.mark.parametrize(("name", "place"), MOVED.items())
def test_litellms_keys_are_said_to_have_moved(name, place, caplog):
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    load_settings({"litellm_settings": {name: "x"}}, {})
    assert caplog.messages == [f"litellm_settings.{name} is not a setting of the gate; {place}"]
