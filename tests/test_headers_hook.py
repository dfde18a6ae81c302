"""Headers that hooks add to every answer, whoever gives it, and what no hook can add."""

from __future__ import annotations

import anyio
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import DONE, START, event, piece, said
from tests.harness import Request, Upstream, answer, chat

pytestmark = pytest.mark.anyio


class Adds(CallHooks):
    """A headers hook that gives what it is told to, and notes what it was given."""

    def __init__(self, gives):
        self.gives = gives
        self.seen = []

    async def async_post_call_response_headers_hook(self, data, user_api_key_dict, response, request_headers):
        self.seen.append((dict(data), user_api_key_dict, response, request_headers))
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


def hook(stage, result):
    async def acts(*, response=None):
        if isinstance(result, Exception):
            raise result
        return result

    callback = CallHooks()
    setattr(callback, stage, acts)
    return callback


STREAM = [START, piece(event(said("a", "stop"))), piece(DONE, more=False)]
NO = HTTPException(403, "no", {"x-of-the-error": "1"})

# Who answers: the app's messages, other callbacks, the body, settings, and the answer's status.
ANSWERS = {
    "app": (answer(b"{}"), [], chat(), {}, 200),
    "app, looked at": (answer(b"{}"), [hook("async_post_call_success_hook", None)], chat(), {}, 200),
    "app, changed": (answer(b"{}"), [hook("async_post_call_success_hook", {"a": 1})], chat(), {}, 200),
    "app, held": (answer(b"{}"), [hook("async_moderation_hook", None)], chat(), {}, 200),
    "app's error": (answer(b"{}", 429), [], chat(), {}, 429),
    "app's error, told": (answer(b"{}", 429), [hook("async_post_call_failure_hook", None)], chat(), {}, 429),
    "app's error, replaced": (answer(b"{}", 429), [hook("async_post_call_failure_hook", NO)], chat(), {}, 403),
    "stream": (STREAM, [], chat(stream=True), {}, 200),
    "stream, read": (STREAM, [hook("async_post_call_streaming_hook", None)], chat(stream=True), {}, 200),
    "stream, refused": (STREAM, [hook("async_post_call_streaming_hook", NO)], chat(stream=True), {}, 403),
    "message": (STREAM, [hook("async_pre_call_hook", "no")], chat(), {}, 200),
    "message as a stream": (STREAM, [hook("async_pre_call_hook", "no")], chat(stream=True), {}, 200),
    "moderation's message": (STREAM, [hook("async_moderation_hook", "no")], chat(), {}, 200),
    "pre-call error": (STREAM, [hook("async_pre_call_hook", NO)], chat(), {}, 403),
    "success error": (answer(b"{}"), [hook("async_post_call_success_hook", NO)], chat(), {}, 403),
    "bad JSON": (STREAM, [], b"{", {}, 400),
    "no user": (STREAM, [], chat(), {"enforce_user_param": True}, 400),
    "no key": (STREAM, [], chat(), {"master_key": "sk-1"}, 401),
}


async def answered(name, *hooks):
    messages, callbacks, body, settings, status = ANSWERS[name]
    response = await Request(body).to(LLMGate(Upstream(messages), callbacks=[*callbacks, *hooks], **settings))
    assert response.status == status
    return response


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_answer_has_what_the_hooks_add_beside_its_own_and_each_hook_is_asked_once(name):
    bare = await answered(name)
    adds = [Adds({"X-One": "1"}), Adds({"x-two": 2})]
    response = await answered(name, *adds)
    assert [len(hook.seen) for hook in adds] == [1, 1]
    assert response.headers[-2:] == [("x-one", "1"), ("x-two", "2")]
    assert sorted(key for key, _ in response.headers[:-2]) == sorted(key for key, _ in bare.headers)


FAILING = [ValueError("x"), NO, "text", 5, [("x-a", "1")]]


@pytest.mark.parametrize("gives", FAILING, ids=repr)
async def test_a_hook_that_fails_loses_only_its_own(gives, caplog):
    response = await answered("app", Adds({"x-first": "1"}), Adds(gives), Adds({"x-last": "2"}))
    assert response.headers[2:] == [("x-first", "1"), ("x-last", "2")]
    assert "Adds.async_post_call_response_headers_hook" in caplog.text


async def test_a_hook_that_takes_too_long_loses_only_its_own(caplog):
    class Sleeps(CallHooks):
        hook_timeout = 0.001

        async def async_post_call_response_headers_hook(self):
            await anyio.sleep_forever()

    response = await answered("app", Sleeps(), Adds({"x-last": "2"}))
    assert response.headers[2:] == [("x-last", "2")]
    assert "Sleeps.async_post_call_response_headers_hook" in caplog.text


@pytest.mark.parametrize("gives", [None, {}], ids=repr)
async def test_nothing_is_added_where_a_hook_gives_nothing(gives, caplog):
    response = await answered("app", Adds(gives))
    assert len(response.headers) == 2
    assert caplog.text == ""


# name, value, what goes out (None: nothing, and it is said).
PAIRS = [
    ("x-a", "b", ("x-a", "b")),
    ("X-A", "b", ("x-a", "b")),
    ("x-a", "", ("x-a", "")),
    ("x-a", " b c ", ("x-a", "b c")),
    ("x-a", 7, ("x-a", "7")),
    ("!#$%&'*+.^_`|~", "b", ("!#$%&'*+.^_`|~", "b")),
    ("", "b", None),
    ("x a", "b", None),
    ("x-a:", "b", None),
    ("x-a\r\nx-b", "b", None),
    ("x-ä", "b", None),
    ("x-a", "b\r\nx-c: d", None),
    ("x-a", "b\n", None),
    ("x-a", "b\0", None),
    ("x-a", "ä", None),
    ("x-a", None, None),
    ("x-a", b"b", None),
    ("x-a", ["b"], None),
    ("x-a", {"b": 1}, None),
    ("x-a", 1.5, None),
    ("x-a", True, None),
    (b"x-a", "b", None),
    (5, "b", None),
    (None, "b", None),
    ("content-length", "1", None),
    ("Content-Length", "1", None),
    ("transfer-encoding", "chunked", None),
    ("connection", "close", None),
    ("content-type", "text/html", None),
    ("content-encoding", "gzip", None),
]


@pytest.mark.parametrize(("name", "value", "sent"), PAIRS, ids=[f"{name!r}-{value!r}" for name, value, _ in PAIRS])
async def test_only_what_can_be_a_header_is_added(name, value, sent, caplog):
    response = await answered("app", Adds({name: value, "x-last": "2"}))
    assert response.headers[2:] == [*([sent] if sent else []), ("x-last", "2")]
    assert ("what is no header" in caplog.text) == (sent is None)


async def test_a_hook_is_given_the_call_and_the_response_that_hooks_have_looked_at():
    adds = Adds({})
    await answered("app, changed", adds)
    ((data, caller, response, headers),) = adds.seen
    assert (data["model"], caller.metadata, response.a) == ("gpt-4o-mini", {}, 1)
    assert headers == {"content-type": "application/json"}


@pytest.mark.parametrize("name", ["app", "stream, read", "pre-call error", "success error", "bad JSON"])
async def test_there_is_no_response_to_see_where_none_was_looked_at(name):
    adds = Adds({})
    await answered(name, adds)
    assert adds.seen[0][2] is None


@pytest.mark.parametrize("gives", [[{"x-a": "1"}, {"X-A": "2"}], [{"x-a": "1", "X-A": "2"}]], ids=["two", "one"])
async def test_of_the_same_name_the_last_one_goes_out(gives):
    response = await answered("app", *map(Adds, gives))
    assert response.headers[2:] == [("x-a", "2")]


async def test_what_is_no_call_gets_no_headers():
    adds = Adds({"x-a": "1"})
    response = await Request(path="/v1/orders").to(LLMGate(Upstream(), callbacks=[adds]))
    assert (response.header("x-a"), adds.seen) == (None, [])
