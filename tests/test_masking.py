"""Keys are masked in what others read: the client's errors, the log, URLs, the output of `try`."""

from __future__ import annotations

import logging

import anyio
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, trial
from asgi_llm_gate.config import load_settings
from asgi_llm_gate.errors import GateError, intended
from asgi_llm_gate.masking import MASK, keep_secret, mask, mask_query
from tests.harness import JSON, Request, Upstream, chat
from tests.stages import chunk
from tests.websocket import REALTIME, Script, WebSocket

pytestmark = pytest.mark.anyio

# One that looks like no key, so that nothing but its being presented tells.
KEY = "the-secret-of-ada"
BEARER = [*JSON, ("authorization", f"Bearer {KEY}")]
SETTINGS = {"keys": [{"api_key": KEY}]}

LONG = "sk-proj-AbC1dEf2GhI3jKl4"

TEXTS = [
    ("no key", "The model is overloaded", None),
    ("OpenAI's", f"Incorrect API key provided: {LONG}.", f"Incorrect API key provided: {MASK}."),
    ("in quotes", f"key '{LONG}' is wrong", f"key '{MASK}' is wrong"),
    ("two of them", f"{LONG} and {LONG}", f"{MASK} and {MASK}"),
    ("masked in part", "sk-abc12*********wxyz", MASK),
    ("Anthropic's", "sk-ant-api03-x_y-z1234567", MASK),
    ("a header", "{'authorization': 'Bearer abc.def-123='}", f"{{'authorization': 'Bearer {MASK}'}}"),
    ("any case", "bearer abcdefgh1", f"bearer {MASK}"),
    ("a word behind bearer", "Bearer authentication is needed", None),
    ("a short word behind it", "bearer of 1 gift", None),
    ("a word with it inside", "a task-force-of-12-people", None),
    ("words alone", "sk-learn-and-other-packages", None),
    ("the presented one", f"no user of {KEY}!", f"no user of {MASK}!"),
    ("the presented one inside", f"x{KEY}y", f"x{MASK}y"),
    ("its beginning", KEY[:-1], None),
    ("the beginnings of many", "sk-" * 100_000, None),
    ("spaces behind bearer", "bearer" + " " * 100_000, None),
]


@pytest.mark.parametrize(("text", "masked"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_what_is_masked_in_a_text(text, masked):
    keep_secret(KEY)
    assert mask(text) == (masked or text)
    assert GateError(400, text).message == (masked or text)
    error = intended(HTTPException(400, {"error": {"message": text}}))
    assert error is not None
    assert error.message == (masked or text)


@pytest.mark.parametrize("key", [None, "", "of", "users"])
def test_a_key_that_is_none_masks_nothing(key):
    """What is shorter than any key would only garble the text."""
    keep_secret(key)
    assert mask("no users of it") == "no users of it"


QUERIES = [
    ("key=abc", f"key={MASK}"),
    ("a=b&api_key=abc&c=d", f"a=b&api_key={MASK}&c=d"),
    ("api-key=abc", f"api-key={MASK}"),
    ("apikey=abc", f"apikey={MASK}"),
    ("Access_Token=abc", f"Access_Token={MASK}"),
    ("auth_token=abc&token=d", f"auth_token={MASK}&token={MASK}"),
    ("monkey=abc", "monkey=abc"),
    ("max_tokens=5", "max_tokens=5"),
    ("key=", "key="),
    ("q=" + LONG, f"q={MASK}"),
]


@pytest.mark.parametrize(("query", "masked"), QUERIES)
def test_what_is_masked_in_a_url(query, masked):
    keep_secret(None)
    assert mask_query(f"http://host/path?{query}") == f"http://host/path?{masked}"


class Tells(CallHooks):
    """Says the key that a call presents, in one way or another, at one stage."""

    def __init__(self, stage, how):
        self.stage = stage
        self.how = how
        self.told = []

    def tell(self, stage):
        if stage != self.stage:
            return
        if self.how == "crash":
            raise ValueError(f"no user of {KEY}")
        raise HTTPException(401, f"Incorrect API key provided: {KEY}")

    async def async_pre_call_hook(self, data):
        self.tell("before")

    async def async_moderation_hook(self, data):
        self.tell("beside")

    async def async_post_call_success_hook(self, response):
        self.tell("after")

    async def async_post_call_streaming_hook(self, response):
        self.tell("piece")

    async def async_post_call_failure_hook(self, original_exception, traceback_str):
        self.told.append(traceback_str)
        self.tell("failure")

    async def async_post_call_response_headers_hook(self, data):
        self.tell("headers")

    async def async_log_success_event(self, kwargs):
        self.tell("log")


def events(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "asgi_llm_gate"]


@pytest.mark.parametrize("how", ["crash", "refusal"])
@pytest.mark.parametrize("stage", ["before", "beside", "after", "piece", "failure", "headers", "log"])
async def test_a_hook_that_says_the_key_is_not_repeated(stage, how, caplog):
    """Neither to the client, nor to the failure hooks, nor in the log, whose line still says where it was raised."""
    stream = stage == "piece"
    app = Upstream([*chunk_messages("Hi")]) if stream else Upstream()
    hooks = [Tells(stage, how), *([Tells("before", "refusal")] if stage == "failure" else [])]
    gate = LLMGate(app, callbacks=hooks, **SETTINGS)
    response = await Request(chat(stream=stream), headers=BEARER).to(gate)
    assert KEY.encode() not in response.body
    assert KEY not in caplog.text
    assert not [told for hook in hooks for told in hook.told if KEY in told]
    if how == "refusal" and stage in {"before", "beside", "after", "piece", "failure"}:
        assert f"Incorrect API key provided: {MASK}".encode() in response.body
    if how == "crash":
        line = events(caplog)[0]
        assert line.startswith("Tells.")
        assert f"ValueError: no user of {MASK}" in line
        assert "in tell" in line


def chunk_messages(text):
    yield {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    yield {"type": "http.response.body", "body": chunk(text) + b"data: [DONE]\n\n", "more_body": False}


async def test_a_crash_that_says_no_key_is_logged_as_it_is(caplog):
    class Crashes(CallHooks):
        async def async_pre_call_hook(self, data):
            raise ValueError("no table")

    await Request(chat(), headers=BEARER).to(LLMGate(Upstream(), callbacks=[Crashes()], **SETTINGS))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[0] is ValueError
    assert record.getMessage() == "Crashes.async_pre_call_hook failed (on_hook_error: reject)"
    assert record.filename == "hooks.py"


async def test_custom_auth_that_says_the_key_is_not_repeated(caplog):
    def fails(request, api_key):
        raise LookupError(f"{api_key} in {request.headers}")

    response = await Request(chat(), headers=BEARER).to(LLMGate(Upstream(), custom_auth=fails))
    assert response.status == 401
    assert KEY not in caplog.text
    assert f"LookupError: {MASK} in " in caplog.text


async def test_custom_auth_that_refuses_with_the_key_is_masked():
    def refuses(request, api_key):
        raise HTTPException(403, f"{api_key} is expired")

    response = await Request(chat(), headers=BEARER).to(LLMGate(Upstream(), custom_auth=refuses))
    assert (response.status, response.error()["message"]) == (403, f"{MASK} is expired")


async def test_a_message_for_the_user_goes_out_word_for_word():
    """It is the author's own text, and no error of some library's."""

    class Says(CallHooks):
        async def async_pre_call_hook(self, data):
            return f"You wrote {LONG}"

    response = await Request(chat(), headers=BEARER).to(LLMGate(Upstream(), callbacks=[Says()], **SETTINGS))
    assert response.json()["choices"][0]["message"]["content"] == f"You wrote {LONG}"


class Given(CallHooks):
    """Keeps what it is given."""

    async def async_pre_call_hook(self, data):
        self.data = data

    async def async_log_success_event(self, kwargs):
        self.logged = kwargs


async def test_hooks_find_the_key_in_no_url_and_no_header_but_the_raw_ones():
    given = Given()
    request = Request(
        chat(), headers=[*BEARER, ("x-goog-api-key", KEY)], scope={"query_string": b"key=" + KEY.encode()}
    )
    await request.to(LLMGate(Upstream(), callbacks=[given], **SETTINGS))
    data = dict(given.data)
    assert data.pop("secret_fields")["raw_headers"]["authorization"] == f"Bearer {KEY}"
    assert data["proxy_server_request"]["url"].endswith(f"?key={MASK}")
    assert data["metadata"]["endpoint"].endswith(f"?key={MASK}")
    for told in (data, given.logged):
        assert KEY not in str(told)


async def test_hooks_find_no_key_of_a_browsers_websocket():
    given, app = Given(), Script()
    protocol = f"openai-insecure-api-key.{KEY}"
    socket = WebSocket(REALTIME, "", {"sec-websocket-protocol": f"realtime, {protocol}"}, subprotocols=[protocol])
    async with socket.open(LLMGate(app, callbacks=[given], **SETTINGS)):
        socket.say({"type": "session.update", "session": {"instructions": "Hi"}})
        while not app.got:
            await anyio.lowlevel.checkpoint()
    data = {name: value for name, value in given.data.items() if name != "secret_fields"}
    assert "headers" in data["proxy_server_request"]
    assert KEY not in str(data)


async def test_an_error_on_a_websocket_is_masked():
    app = Script()
    socket = WebSocket(REALTIME, headers={"authorization": f"Bearer {KEY}"})
    async with socket.open(LLMGate(app, callbacks=[Tells("before", "refusal")], **SETTINGS)):
        socket.say({"type": "session.update", "session": {"instructions": "Hi"}})
        error = (await socket.hear())["error"]
    assert error["message"] == f"Incorrect API key provided: {MASK}"


async def test_a_trial_does_not_print_the_key():
    """What looks like a key elsewhere is printed: it may be what a hook is tried for."""
    body = orjson.loads(chat(messages=[{"role": "user", "content": f"My key is {LONG}"}]))
    request = trial.read_request(orjson.dumps({"body": body, "headers": {"authorization": f"Bearer {KEY}"}}))
    settings = load_settings(None, {**SETTINGS, "callbacks": [Tells("after", "refusal")]}, {})
    printed = trial.report(await trial.run(settings, request), settings)
    assert KEY not in printed
    assert f"raised HTTPException 401: Incorrect API key provided: {MASK}" in printed
    assert LONG in printed
