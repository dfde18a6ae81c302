"""LiteLLM's page of call hooks as it is written, of which LiteLLM's proxy 1.106.2 keeps little, and what it does worse.

The tests of the first part are named after the page's promises, those of the second after the behaviours of the proxy
that users report as bugs. Each says in a sentence what the proxy does.
"""

from __future__ import annotations

from typing import Literal

import anyio
import orjson
import pytest
from fastapi import HTTPException

from asgi_llm_gate import CallHooks, DualCache, LLMGate, UserAPIKeyAuth, get_formatted_prompt
from asgi_llm_gate.config import ConfigError
from asgi_llm_gate.endpoints import ENDPOINTS, by_call_type
from tests.harness import CHAT, Request, Upstream, answer, chat
from tests.multipart import request_to

pytestmark = pytest.mark.anyio

TEXT = "/v1/completions"
SAID = "This is an invalid response"

# What each gated endpoint is asked, with the text that the page's example looks for.
BODIES = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hello world"}]},
    TEXT: {"model": "m", "prompt": "Hello world"},
    "/v1/embeddings": {"model": "m", "input": "Hello world"},
    "/v1/moderations": {"model": "m", "input": "Hello world"},
    "/v1/images/generations": {"model": "m", "prompt": "Hello world"},
    "/v1/images/edits": {"model": "m", "prompt": "Hello world"},
    "/v1/audio/transcriptions": {"model": "m", "prompt": "Hello world"},
    "/v1/audio/translations": {"model": "m", "prompt": "Hello world"},
}
OTHERS = [path for path in BODIES if path not in (CHAT, TEXT)]

endpoints = pytest.mark.parametrize("path", BODIES)


class MyCustomHandler:
    """The page's handler that answers with a rejected message."""

    async def async_pre_call_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,
        cache: DualCache,
        data: dict,
        call_type: Literal[
            "completion", "text_completion", "embeddings", "image_generation", "moderation", "audio_transcription"
        ],
    ):
        if "Hello world" in get_formatted_prompt(data=data, call_type=call_type):
            return SAID
        return data


class Moderating:
    """The page's moderation hook, with the two arguments it is written with."""

    async def async_moderation_hook(self, data: dict):
        if data["messages"][0]["content"] == "Hello world":
            raise HTTPException(status_code=400, detail={"error": "Violated content safety policy"})


class Hook(CallHooks):
    """A callback with one hook, which does as told."""

    def __init__(self, method, does):
        async def hook(**arguments):
            return does(**arguments)

        setattr(self, method, hook)


def raises(exc):
    def does(**_):
        raise exc

    return does


async def asked(path, *callbacks, upstream=None, fields=None, **settings):
    body = orjson.dumps({**BODIES[path], **(fields or {})})
    return await request_to(path, body).to(LLMGate(upstream or Upstream(), callbacks=callbacks, **settings))


# The page's promises.


async def test_a_str_from_the_pre_call_hook_is_a_chat_completion_that_says_it():
    """The proxy: 400, because `acompletion` is not `completion`."""
    response = await asked(CHAT, MyCustomHandler())
    assert response.status == 200
    content = response.json()
    assert (content["object"], content["model"]) == ("chat.completion", "m")
    (choice,) = content["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "stop")


async def test_a_str_from_the_pre_call_hook_is_a_text_completion_that_says_it():
    """The proxy: 400 with a Python repr in its message."""
    response = await asked(TEXT, MyCustomHandler())
    assert response.status == 200
    content = response.json()
    assert (content["object"], content["id"][:5]) == ("text_completion", "cmpl-")
    (choice,) = content["choices"]
    assert (choice["text"], choice["finish_reason"]) == (SAID, "stop")


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_a_str_is_streamed_when_the_call_asks_for_a_stream(path):
    """The proxy: 500, or 400 with an event stream."""
    response = await asked(path, MyCustomHandler(), fields={"stream": True})
    assert response.status == 200
    choices = [choice for chunk in response.chunks() for choice in chunk["choices"]]
    said = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    assert said == SAID
    assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", OTHERS)
async def test_a_str_is_a_400_with_just_that_message_on_other_endpoints(path):
    response = await asked(path, MyCustomHandler())
    assert response.status == 400
    assert response.error()["message"] == SAID


@endpoints
async def test_the_rejected_text_is_exactly_the_hooks_string(path):
    """The proxy: `litellm.BadRequestError: litellm.RejectedRequestError: …`."""
    response = await asked(path, MyCustomHandler())
    assert response.body.count(SAID.encode()) == 1
    for leaked in (b"litellm", b"Error:", b"{'", b"Rejection"):
        assert leaked not in response.body


async def test_a_moderation_hook_may_take_data_alone():
    """The proxy: every call is a 500, `unexpected keyword argument`."""
    response = await asked(CHAT, Moderating())
    assert response.status == 400
    assert response.error() == {
        "message": "Violated content safety policy",
        "type": "invalid_request_error",
        "param": None,
        "code": "400",
    }
    assert (await Request(chat()).to(LLMGate(Upstream(), callbacks=[Moderating()]))).status == 200


@endpoints
async def test_moderation_runs_on_a_plain_handler_and_on_every_endpoint(path):
    """The proxy: dead code from 1.53 to 1.100, and today on three endpoints."""
    seen = []
    upstream = Upstream()
    await asked(path, Hook("async_moderation_hook", lambda call_type, **_: seen.append(call_type)), upstream=upstream)
    assert len(seen) == len(upstream.calls) == 1


ALIASES = [
    *("completion", "acompletion", "text_completion", "atext_completion", "embedding", "embeddings", "aembedding"),
    *("moderation", "amoderation", "image_generation", "aimage_generation", "audio_transcription", "transcription"),
    *("atranscription", "responses", "aresponses", "anthropic_messages"),
]


@pytest.mark.parametrize("call_type", ALIASES)
def test_get_formatted_prompt_finds_the_text_for_every_alias(call_type):
    """The proxy: `""` for `atext_completion`, `aembedding`, `aresponses`, … so that the page's filter never matches."""
    suffix = by_call_type(call_type).suffix
    known = {**BODIES, "/v1/responses": {"model": "m", "input": "Hello world"}}
    bodies = [known[f"/v1{suffix}"]] if f"/v1{suffix}" in known else BODIES.values()
    for body in bodies:
        assert "Hello world" in get_formatted_prompt(data=body, call_type=call_type)


@endpoints
@pytest.mark.parametrize("call_type_names", ["documented", "litellm"])
async def test_the_pages_filter_matches_under_either_spelling_of_call_types(path, call_type_names):
    response = await asked(path, MyCustomHandler(), call_type_names=call_type_names)
    assert SAID.encode() in response.body
    harmless = dict.fromkeys(("prompt", "input"), "Hi") | {"messages": []}
    response = await asked(path, MyCustomHandler(), fields=harmless, call_type_names=call_type_names)
    assert response.json() == {"ok": True}


@endpoints
async def test_enforce_user_param(path):
    """The proxy: 401, or 500 without a database client; `""` and null pass."""
    upstream = Upstream()
    numbers = [] if "/audio/" in path else [{"user": 1}]  # which forms do not have
    for user in ({}, {"user": ""}, {"user": None}, {"user": " "}, *numbers):
        response = await asked(path, upstream=upstream, fields=user, enforce_user_param=True)
        assert response.status == 400
        assert response.error()["param"] == "user"
        assert response.error()["type"] == "invalid_request_error"
    assert upstream.calls == []
    response = await asked(path, upstream=upstream, fields={"user": "ishaan-app"}, enforce_user_param=True)
    assert (response.status, len(upstream.calls)) == (200, 1)


def test_every_gated_endpoint_is_in_these_tests():
    """All that the page has a word for; the others have tests of their own."""
    words = {"completion", "text_completion", "embeddings", "image_generation", "moderation", "audio_transcription"}
    assert {f"/v1{row.suffix}" for row in ENDPOINTS if row.call_type in words} <= set(BODIES)


# What the proxy does worse.


@endpoints
async def test_one_envelope_for_all_routes(path):
    """The proxy: three shapes of body, some with a repr, for the same HTTPException."""
    exc = HTTPException(403, {"error": "no", "extra": 1})
    bodies = set()
    for method in ("async_pre_call_hook", "async_moderation_hook", "async_post_call_success_hook"):
        response = await asked(path, Hook(method, raises(exc)))
        bodies.add(response.body)
        assert response.status == 403
        assert response.error() == {"message": "no", "type": "permission_error", "param": None, "code": "403"}
    assert len(bodies) == 1


@endpoints
@pytest.mark.parametrize("crash", [ValueError("of the hook"), AttributeError("of the hook")], ids=repr)
async def test_a_500_does_not_echo_the_hooks_exception(path, crash):
    """The proxy: the text goes to the client, and an AttributeError is a 400, as if the client had erred."""
    response = await asked(path, Hook("async_pre_call_hook", raises(crash)))
    assert response.status == 500
    assert response.error()["message"] == "Internal server error"
    assert b"of the hook" not in response.body


async def test_inherited_hooks_run():
    """The proxy: only those of the leaf class."""

    class Child(MyCustomHandler):
        pass

    assert (await asked(CHAT, Child())).json()["choices"][0]["message"]["content"] == SAID


async def test_plain_functions_run():
    """The proxy: `object dict can't be used in 'await' expression` on every call."""

    class Plain:
        def async_pre_call_hook(self, data):
            return {**data, "model": "my-new-model"}

    upstream = Upstream()
    await asked(CHAT, Plain(), upstream=upstream)
    assert upstream.data["model"] == "my-new-model"


def test_a_wrong_signature_fails_at_the_start():
    """The proxy: a TypeError on every call."""

    class Wrong:
        async def async_moderation_hook(self, data, guardrail):
            """Never called."""

    with pytest.raises(ConfigError, match=r"Wrong\.async_moderation_hook needs guardrail"):
        LLMGate(Upstream(), callbacks=[Wrong()])


@pytest.mark.parametrize("value", [[], 1, True], ids=repr)
async def test_an_unknown_return_type_is_an_error(value, caplog):
    """The proxy: it is ignored."""
    response = await asked(CHAT, Hook("async_pre_call_hook", lambda **_: value))
    assert response.status == 500
    assert f"returned {type(value).__name__}" in caplog.text


async def test_the_user_is_checked_before_hooks_and_forwarded():
    """The proxy: models it does not know lose it on the way."""
    ran = []
    hook = Hook("async_pre_call_hook", lambda **_: ran.append(True))
    assert (await asked(CHAT, hook, enforce_user_param=True)).status == 400
    assert ran == []
    upstream = Upstream()
    await asked(CHAT, hook, upstream=upstream, fields={"user": "u"}, enforce_user_param=True)
    assert upstream.data["user"] == "u"


async def test_moderation_holds_the_answer_and_fails_closed():
    """The proxy: no limit in time, and no choice of what a crash means."""

    class Hangs(CallHooks):
        hook_timeout = 0.001

        async def async_moderation_hook(self, data):
            await anyio.sleep_forever()

    assert (await asked(CHAT, Hangs())).status == 500
    assert (await asked(CHAT, Hangs(), on_hook_error="allow")).status == 200


async def test_moderation_cannot_change_the_call():
    """The proxy: top-level edits are lost, nested ones race with the request."""
    upstream = Upstream()

    def changes(data, **_):
        data["model"] = data["messages"][0]["content"] = "changed"

    await asked(CHAT, Hook("async_moderation_hook", changes), upstream=upstream)
    assert upstream.data == BODIES[CHAT]


@endpoints
async def test_the_same_hooks_run_on_every_endpoint(path):
    """The proxy: no success hook on moderations, no moderation on images and audio."""
    ran = []
    methods = ["async_pre_call_hook", "async_moderation_hook", "async_post_call_success_hook"]

    def noting(method):
        return Hook(method, lambda **_: ran.append(method))

    await asked(path, *map(noting, methods))
    assert sorted(ran) == sorted(methods)


async def test_a_class_is_accepted():
    """The proxy: a class in place of an instance fails the start, or was passed over in silence."""
    assert (await asked(CHAT, MyCustomHandler)).json()["choices"][0]["message"]["content"] == SAID


async def test_siblings_and_upstream_are_cancelled_and_awaited():
    """The proxy: the sibling hook goes on alone, and the upstream's answer is paid for."""
    ended = []

    class Sibling(CallHooks):
        async def async_moderation_hook(self, data):
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("sibling")

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        ended.append("app")

    response = await asked(CHAT, Moderating(), Sibling(), upstream=app, cancel_grace=3600.0)
    assert response.status == 400
    assert sorted(ended) == ["app", "sibling"]


async def test_state_of_host_and_hooks_never_reaches_the_app():
    """The proxy: a top-level key of a hook's own is forwarded, and the client's `metadata` is not."""

    def keeps_state(data, **_):
        data["metadata"]["score"] = data["litellm_metadata"]["score"] = 1

    upstream = Upstream()
    hooks = [Hook("async_pre_call_hook", keeps_state)]
    await asked(CHAT, *hooks, upstream=upstream, fields={"metadata": {"run": "r"}})
    assert upstream.data == {**BODIES[CHAT], "metadata": {"run": "r"}}


@endpoints
async def test_the_failure_hook_is_honoured_on_every_route(path):
    """The proxy: its replacement is dropped on half of them."""
    replaces = Hook("async_post_call_failure_hook", lambda **_: HTTPException(418, "replaced"))
    upstream = Upstream(answer(b'{"error":{"message":"m"}}', 500))
    for callbacks in ([replaces], [MyCustomHandler(), replaces], [Moderating(), replaces]):
        response = await asked(path, *callbacks, upstream=upstream)
        assert (response.status, response.error()["message"]) == (418, "replaced")


async def test_an_old_failure_hook_is_called_with_what_it_takes():
    """The proxy: a TypeError, swallowed."""
    told = []

    class Old:
        async def async_post_call_failure_hook(self, original_exception, user_api_key_dict):
            told.append(original_exception)

    await asked(CHAT, MyCustomHandler(), Old())
    assert [exc.message for exc in told] == [SAID]


@endpoints
async def test_an_upstreams_error_passes_unchanged(path):
    """The proxy: its code is lost, and its message gets two prefixes and a suffix."""
    messages = answer(b'{"error":{"message":"m","type":"t","param":"p","code":"context_length_exceeded"}}', 400)
    success = Hook("async_post_call_success_hook", raises(AssertionError("not for errors")))
    response = await asked(path, success, upstream=Upstream(messages))
    assert response.sent == messages


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"1", b"null"])
async def test_a_body_that_is_no_object_is_400(body):
    """The proxy: 500."""
    response = await Request(body).to(LLMGate(Upstream(), callbacks=[MyCustomHandler()]))
    assert (response.status, response.error()["code"]) == (400, "invalid_json")


async def test_a_client_cannot_speak_for_the_gate():
    """The spoofing guard, which the proxy has too."""
    seen = []
    lies = {"metadata": {"user_api_key_user_id": "admin"}, "secret_fields": {"raw_headers": {}}, "litellm_call_id": "1"}
    await asked(CHAT, Hook("async_pre_call_hook", lambda data, **_: seen.append({**data})), fields=lies)
    ((data),) = seen
    assert data["metadata"]["user_api_key_user_id"] is None
    assert data["secret_fields"]["raw_headers"]["content-type"] == "application/json"
    assert data["litellm_call_id"] != "1"


async def test_a_success_hooks_edits_and_its_new_response_both_count():
    """The proxy: returned values were ignored until 2026, edits now and then."""
    upstream = Upstream(answer(b'{"choices":[{"message":{"content":"hi"}}]}'))

    def edits(response, **_):
        response.choices[0].message.content += " edited"

    def returns(response, **_):
        return {**response.model_dump(), "replaced": True}

    hooks = [Hook("async_post_call_success_hook", does) for does in (edits, returns)]
    response = await asked(CHAT, *hooks, upstream=upstream)
    assert response.json() == {"choices": [{"message": {"content": "hi edited"}}], "replaced": True}
