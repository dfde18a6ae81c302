"""Hooks of any year's signature get what they accept, and what they return or raise has one meaning each."""

from __future__ import annotations

import functools
import inspect
import logging
from types import SimpleNamespace

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, DualCache, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.config import ConfigError
from asgi_llm_gate.hooks import (
    STAGES,
    HookFailedError,
    chain,
    check,
    new_data,
    overrides,
    refuse_if_asked,
    replacement,
    report_failure,
)
from asgi_llm_gate.record import Record
from tests.harness import JSON, Request, Upstream, answer, chat

pytestmark = pytest.mark.anyio

PRE, MODERATION, SUCCESS, FAILURE = (
    "async_pre_call_hook",
    "async_moderation_hook",
    "async_post_call_success_hook",
    "async_post_call_failure_hook",
)
ALL = {
    PRE: {"user_api_key_dict": 1, "cache": 2, "data": {"x": 3}, "call_type": "completion"},
    MODERATION: {"data": {"x": 3}, "user_api_key_dict": 1, "call_type": "completion"},
    SUCCESS: {"data": {"x": 3}, "user_api_key_dict": 1, "response": 4},
    FAILURE: {"request_data": 1, "original_exception": 2, "user_api_key_dict": 3, "traceback_str": "4"},
}


def hooks(callback, method=PRE, timeout=30.0, on_error="reject"):
    return chain([callback], method, timeout=timeout, on_error=on_error)


async def called(callback, method=PRE):
    """Call a callback's hook as the gate would, and return what it returned."""
    (hook,) = hooks(callback, method)
    return await hook(**ALL[method])


class Of2024(CallHooks):
    """As the documentation of 2024 wrote them."""

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        return [user_api_key_dict, cache, data["x"], call_type]

    async def async_moderation_hook(self, data):
        return [data["x"]]

    async def async_post_call_success_hook(self, user_api_key_dict, response):
        return [user_api_key_dict, response]

    async def async_post_call_failure_hook(self, original_exception, user_api_key_dict):
        return [original_exception, user_api_key_dict]


class Of2026(CallHooks):
    """As LiteLLM calls them now, with arguments that come and go."""

    async def async_pre_call_hook(
        self, user_api_key_dict, cache, data, call_type, *, prompt_spec=None, llm_router=None
    ):
        return [user_api_key_dict, cache, data["x"], call_type, prompt_spec, llm_router]

    async def async_moderation_hook(self, data, user_api_key_dict, call_type, event_type="during_call"):
        return [data["x"], user_api_key_dict, call_type, event_type]

    async def async_post_call_success_hook(self, data, user_api_key_dict, response, start_time=None):
        return [data["x"], user_api_key_dict, response, start_time]

    async def async_post_call_failure_hook(self, request_data, original_exception, user_api_key_dict, traceback_str=""):
        return [request_data, original_exception, user_api_key_dict, traceback_str]


SIGNATURES = [
    (Of2024(), PRE, [1, 2, 3, "completion"]),
    (Of2024(), MODERATION, [3]),
    (Of2024(), SUCCESS, [1, 4]),
    (Of2024(), FAILURE, [2, 3]),
    (Of2026(), PRE, [1, 2, 3, "completion", None, None]),
    (Of2026(), MODERATION, [3, 1, "completion", "during_call"]),
    (Of2026(), SUCCESS, [3, 1, 4, None]),
    (Of2026(), FAILURE, [1, 2, 3, "4"]),
]


@pytest.mark.parametrize(
    ("callback", "method", "got"), SIGNATURES, ids=[f"{type(row[0]).__name__}-{row[1]}" for row in SIGNATURES]
)
async def test_a_hook_is_called_with_what_its_signature_accepts(callback, method, got):
    assert await called(callback, method) == got


def taking(signature, *, kind="async def"):
    """A callback with one pre-call hook of a signature, which returns the names of what it was given."""
    namespace: dict[str, type] = {}
    names = "[name for name in locals() if name not in ('self', 'cls')]"
    exec(f"class Callback:\n    {kind} {PRE}({signature}):\n        return {names}", namespace)
    return namespace["Callback"]()


async def test_keyword_catchers_get_everything():
    class Catcher:
        async def async_pre_call_hook(self, **everything):
            return everything

        async def async_moderation_hook(self, data, *args, **rest):
            return [data, args, rest]

    assert await called(Catcher()) == ALL[PRE]
    rest = {"user_api_key_dict": 1, "call_type": "completion"}
    assert await called(Catcher(), MODERATION) == [{"x": 3}, (), rest]


ACCEPTED = [
    ("self", []),
    ("self, data", ["data"]),
    ("self, data=None", ["data"]),
    ("self, *, data, cache", ["data", "cache"]),
    ("self, call_type, data", ["call_type", "data"]),
    ("self, data, extra=1", ["data", "extra"]),
    ("self, data, *args", ["data", "args"]),
    ("self, extra=1, /, *, data", ["extra", "data"]),
]


@pytest.mark.parametrize("kind", ["async def", "def"])
@pytest.mark.parametrize(("signature", "names"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
async def test_any_part_of_the_arguments_in_any_order_will_do(signature, names, kind):
    callback = taking(signature, kind=kind)
    check(callback)
    assert await called(callback) == names


REFUSED = [
    ("self, foo", "needs foo"),
    ("self, data, foo, bar", "needs foo, bar"),
    ("self, foo, **kwargs", "needs foo"),
    ("self, data, /", "needs data"),
    ("self, response", "needs response"),
]


@pytest.mark.parametrize(("signature", "complaint"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_hook_that_needs_more_is_refused_at_the_start(signature, complaint):
    """In one line that names hook and argument, never by a TypeError on every request."""
    with pytest.raises(TypeError, match=complaint) as caught:
        check(taking(signature))
    assert str(caught.value).startswith(f"Callback.{PRE} needs")
    assert "user_api_key_dict" in str(caught.value)
    with pytest.raises(ConfigError, match=complaint):
        LLMGate(Upstream(), callbacks=[taking(signature)])


async def hook_function(data):
    return data["x"]


class Parent(CallHooks):
    async def async_pre_call_hook(self, data):
        return data["x"]


class Child(Parent):
    pass


class Static:
    @staticmethod
    async def async_pre_call_hook(data):
        return data["x"]


class OfClass:
    @classmethod
    async def async_pre_call_hook(cls, data):
        return data["x"]


class Callable:
    async def __call__(self, data):
        return data["x"]


class Attribute:
    def __init__(self, value):
        self.async_pre_call_hook = value


class Slotted:
    __slots__ = ()

    def async_pre_call_hook(self, data):
        return data["x"]


def decorated(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


class Decorated:
    @decorated
    async def async_pre_call_hook(self, data):
        return data["x"]


class Awaits:
    """A plain function that returns something to await which is no coroutine."""

    def async_pre_call_hook(self, data):
        class Later:
            def __await__(self):
                yield from checkpoint().__await__()
                return data["x"]

        return Later()


FORMS = {
    "inherited": Child(),
    "static": Static(),
    "of the class": OfClass(),
    "a function on the object": Attribute(hook_function),
    "a lambda": Attribute(lambda data: data["x"]),
    "a partial": Attribute(functools.partial(lambda extra, data: data["x"], 1)),
    "a callable object": Attribute(Callable()),
    "plain def": Slotted(),
    "decorated": Decorated(),
    "another awaitable": Awaits(),
    "a module's": SimpleNamespace(async_pre_call_hook=hook_function),
}


@pytest.mark.parametrize("callback", FORMS.values(), ids=FORMS)
async def test_a_hook_may_be_defined_in_any_way(callback):
    check(callback)
    assert await called(callback) == 3


async def test_a_class_is_instantiated():
    class Refuses:
        def async_pre_call_hook(self):
            return "no"

    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[Refuses]))
    assert response.json()["choices"][0]["message"]["content"] == "no"


@pytest.mark.parametrize("method", STAGES)
@pytest.mark.parametrize(
    "callback",
    [CallHooks(), type("Empty", (CallHooks,), {})(), object(), Attribute(None)],
    ids=lambda c: type(c).__name__,
)
def test_what_is_not_overridden_costs_nothing(callback, method):
    assert not overrides(callback, method)
    assert hooks(callback, method) == ()


@pytest.mark.parametrize("method", [name for name in STAGES if not name.endswith("iterator_hook")])
async def test_the_base_class_does_nothing(method):
    """So that a handler's `super()` call works."""
    hook = getattr(CallHooks(), method)
    result = hook(**dict.fromkeys(inspect.signature(hook).parameters))
    assert await result is None if inspect.isawaitable(result) else result is None


async def test_the_base_class_yields_every_chunk():
    async def chunks():
        yield 1
        yield 2

    made = CallHooks().async_post_call_streaming_iterator_hook(None, chunks(), {})
    assert [chunk async for chunk in made] == [1, 2]


@pytest.mark.parametrize("result", [None, {}, {"a": 1}], ids=repr)
def test_a_pre_call_hook_returns_data_or_nothing(result):
    assert new_data(result) is result


@pytest.mark.parametrize("result", [1, 0, True, False, [], ["a"], b"a", object, 1.5], ids=repr)
def test_anything_else_is_a_mistake_of_the_hook(result):
    with pytest.raises(TypeError, match=type(result).__name__):
        new_data(result)
    with pytest.raises(TypeError, match=type(result).__name__):
        replacement(Record, result)
    refuse_if_asked(result)


def test_a_returned_exception_is_raised():
    exc = HTTPException(400, "no")
    for reads in (new_data, functools.partial(replacement, Record), refuse_if_asked):
        with pytest.raises(HTTPException) as caught:
            reads(exc)
        assert caught.value is exc


def test_a_success_hook_cannot_return_a_message():
    with pytest.raises(TypeError, match="str"):
        replacement(Record, "no")


class Says(CallHooks):
    """A callback whose hook of one stage does as told."""

    def __init__(self, method, does, **attributes):
        vars(self).update(attributes)

        async def hook(**arguments):
            await checkpoint()
            return does(**arguments)

        setattr(self, method, hook)


def raises(exc):
    def does(**_):
        raise exc

    return does


async def asked(*callbacks, body=None, upstream=None, headers=JSON, **gate):
    upstream = upstream or Upstream()
    response = await Request(body or chat(), headers=headers).to(LLMGate(upstream, callbacks=callbacks, **gate))
    return response, upstream


# What a pre-call hook does, and the model that the app is asked for.
CHANGES = {
    "nothing": (lambda data, **_: None, "gpt-4o-mini"),
    "an edit": (lambda data, **_: data.update(model="new"), "new"),
    "the same dict": (lambda data, **_: data, "gpt-4o-mini"),
    "a new dict": (lambda data, **_: {"model": "new"}, "new"),
    "an edited copy": (lambda data, **_: {**data, "model": "new"}, "new"),
    "an edit and a new dict": (lambda data, **_: data.update(model="lost") or {"model": "new"}, "new"),
}


@pytest.mark.parametrize(("does", "model"), CHANGES.values(), ids=CHANGES)
async def test_a_pre_call_hook_changes_what_the_app_gets(does, model):
    response, upstream = await asked(Says(PRE, does))
    assert response.status == 200
    assert upstream.data["model"] == model
    assert set(upstream.data) <= {"model", "messages"}


async def test_each_hook_sees_what_the_one_before_left_in_one_dict():
    seen = []

    def notes(data, **_):
        seen.append((id(data), data["model"], data["metadata"].get("state")))
        data["metadata"]["state"] = len(seen)
        return {"model": f"model-{len(seen)}"}

    def notes_later(data, **_):
        seen.append((id(data), data["model"], data["metadata"].get("state")))

    callbacks = [Says(PRE, notes), Says(PRE, notes), Says(MODERATION, notes_later), Says(SUCCESS, notes_later)]
    await asked(*callbacks)
    assert len({same for same, _, _ in seen}) == 1
    assert [(model, state) for _, model, state in seen] == [
        ("gpt-4o-mini", None),
        ("model-1", 1),
        ("model-2", 2),
        ("model-2", 2),
    ]


async def test_what_every_hook_is_given():
    given = {}

    def notes(name):
        def does(**arguments):
            given[name] = arguments

        return does

    cache = DualCache()
    callbacks = [Says(PRE, notes(PRE)), Says(MODERATION, notes(MODERATION)), Says(SUCCESS, notes(SUCCESS))]
    headers = [*JSON, ("authorization", "Bearer sk-secret")]
    await asked(*callbacks, body=chat(user="u"), headers=headers, cache=cache)
    assert {name: set(arguments) for name, arguments in given.items()} == {name: STAGES[name] for name in given}
    assert given[PRE]["cache"] is cache
    assert given[PRE]["call_type"] == given[MODERATION]["call_type"] == "completion"
    caller = given[PRE]["user_api_key_dict"]
    assert isinstance(caller, UserAPIKeyAuth)
    assert caller.end_user_id == "u"
    assert given[MODERATION]["user_api_key_dict"] is given[SUCCESS]["user_api_key_dict"] is caller
    assert given[SUCCESS]["response"].ok is True


CALL_TYPES = [
    ("/v1/chat/completions", "completion", "acompletion"),
    ("/v1/completions", "text_completion", "atext_completion"),
    ("/v1/embeddings", "embeddings", "aembedding"),
    ("/v1/moderations", "moderation", "moderation"),
    ("/v1/images/generations", "image_generation", "image_generation"),
]


@pytest.mark.parametrize(("path", "documented", "litellms"), CALL_TYPES, ids=[row[1] for row in CALL_TYPES])
async def test_call_types_by_their_documented_names_or_by_litellms(path, documented, litellms):
    seen = []
    callbacks = [Says(PRE, lambda call_type, **_: seen.append(call_type))]
    for settings in ({}, {"call_type_names": "litellm"}):
        await Request(b"{}", path=path).to(LLMGate(Upstream(), callbacks=callbacks, **settings))
    assert seen == [documented, litellms]


RESPONSE = orjson.dumps({"choices": [{"message": {"content": "hi"}}]}) + b"\n"


async def answered(*does):
    """The response that a client gets when success hooks do so."""
    response, _ = await asked(*(Says(SUCCESS, each) for each in does), upstream=Upstream(answer(RESPONSE)))
    return response


def edits_by_attribute(response, **_):
    response.choices[0].message.content = "edited"


def edits_by_item(response, **_):
    response["choices"][0]["message"]["content"] = "edited"


def returns_dict(response, **_):
    return {"choices": [{"message": {"content": "edited"}}]}


def returns_object(response, **_):
    return SimpleNamespace(model_dump=lambda: {"choices": [{"message": {"content": "edited"}}]})


@pytest.mark.parametrize("does", [edits_by_attribute, edits_by_item, returns_dict, returns_object])
async def test_a_success_hook_changes_what_the_client_gets(does):
    response = await answered(does)
    assert response.json() == {"choices": [{"message": {"content": "edited"}}]}


@pytest.mark.parametrize("does", [lambda response, **_: None, lambda response, **_: response], ids=["None", "same"])
async def test_a_response_no_hook_changed_goes_out_byte_for_byte(does):
    assert (await answered(does)).body == RESPONSE


async def test_success_hooks_run_in_order_each_on_what_the_one_before_left():
    seen = []

    def notes(response, **_):
        seen.append(response.choices[0].message.content)
        return {"choices": [{"message": {"content": f"{response.choices[0].message.content}!"}}]}

    response = await answered(notes, edits_by_attribute, notes, notes)
    assert seen == ["hi", "edited", "edited!"]
    assert response.json()["choices"][0]["message"]["content"] == "edited!!"


async def test_parts_that_one_hook_adds_are_objects_for_the_next():
    def adds(response, **_):
        response.choices.append({"message": {"content": "added"}})

    def reads(response, **_):
        response.choices[1].message.content += "!"

    content = (await answered(adds, reads)).json()
    assert [choice["message"]["content"] for choice in content["choices"]] == ["hi", "added!"]


NOT_JSON = {"object": object(), "set": {1}, "key": {1: object()}}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json_is_500_and_logged(value, caplog):
    def spoils_data(data, **_):
        data["x"] = value

    def spoils_response(response, **_):
        response["x"] = value

    for callback in (Says(PRE, spoils_data), Says(SUCCESS, spoils_response)):
        caplog.clear()
        response, _ = await asked(callback)
        assert (response.status, response.error()["code"]) == (500, "internal_error")
        assert "not JSON" in caplog.text


async def test_a_response_that_cannot_be_dumped_is_500():
    def fails():
        raise ValueError("of the hook")

    response, _ = await asked(Says(SUCCESS, lambda **_: SimpleNamespace(model_dump=fails)))
    assert (response.status, response.error()["message"]) == (500, "Internal server error")


CRASHES = {
    "raises": raises(ValueError("sk-of-the-hook")),
    "an attribute error": lambda **_: SimpleNamespace().content,
    "raises TimeoutError": raises(TimeoutError("sk-of-the-hook")),
    "raises what is no exception": raises(SimpleNamespace),
}
for_stages = pytest.mark.parametrize("method", [PRE, MODERATION, SUCCESS])


@for_stages
@pytest.mark.parametrize("does", CRASHES.values(), ids=CRASHES)
async def test_a_crash_is_a_500_that_tells_nothing(does, method, caplog):
    """Also an AttributeError, which LiteLLM reports as the client's mistake."""
    response, _ = await asked(Says(method, does))
    assert response.status == 500
    assert response.error() == {
        "message": "Internal server error",
        "type": "internal_server_error",
        "param": None,
        "code": "internal_error",
    }
    assert f"Says.{method} failed (on_hook_error: reject)" in caplog.text
    assert "Traceback" in caplog.text


@for_stages
@pytest.mark.parametrize("does", CRASHES.values(), ids=CRASHES)
async def test_a_crash_may_be_allowed(does, method, caplog):
    """Then the call goes on as if the hook had returned None, by the setting or by the callback's own word."""
    ran = []
    after = Says(method, lambda **_: ran.append(True))
    for callback, settings in (
        (Says(method, does), {"on_hook_error": "allow"}),
        (Says(method, does, on_hook_error="allow"), {}),
    ):
        caplog.clear()
        response, _ = await asked(callback, after, **settings)
        assert (response.status, response.json()) == (200, {"ok": True})
        assert f"Says.{method} failed (on_hook_error: allow)" in caplog.text
    assert ran == [True, True]


@for_stages
async def test_the_callbacks_own_word_wins_over_the_setting(method):
    callback = Says(method, raises(ValueError()), on_hook_error="reject")
    response, _ = await asked(callback, on_hook_error="allow")
    assert response.status == 500


@for_stages
async def test_a_rejection_is_no_crash_and_never_allowed(method, caplog):
    response, _ = await asked(Says(method, raises(HTTPException(403, "no"))), on_hook_error="allow")
    assert (response.status, response.error()["message"]) == (403, "no")
    assert caplog.records == []


@pytest.mark.parametrize("result", [1, [], b"x"], ids=repr)
@pytest.mark.parametrize("method", [PRE, SUCCESS])
async def test_a_value_that_has_no_meaning_is_a_crash(method, result, caplog):
    response, _ = await asked(Says(method, lambda **_: result))
    assert response.status == 500
    assert type(result).__name__ in caplog.text
    response, _ = await asked(Says(method, lambda **_: result), on_hook_error="allow")
    assert response.status == 200


class Hangs(CallHooks):
    """A callback that never comes back from one stage, and notes that it was ended."""

    def __init__(self, method, **attributes):
        self.ended = []
        vars(self).update(attributes)
        setattr(self, method, self.hang)

    async def hang(self):
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append(True)


@for_stages
@pytest.mark.parametrize(
    ("attributes", "settings"),
    [({}, {"hook_timeout": 0.001}), ({"hook_timeout": 0.001}, {}), ({"hook_timeout": 0.001}, {"hook_timeout": 3600})],
    ids=["setting", "attribute", "attribute over setting"],
)
async def test_a_hook_that_hangs_is_ended_by_its_time_limit(method, attributes, settings, caplog):
    callback = Hangs(method, **attributes)
    response, _ = await asked(callback, **settings)
    assert (response.status, callback.ended) == (500, [True])
    assert "DeadlineError" in caplog.text
    response, _ = await asked(callback, on_hook_error="allow", **settings)
    assert (response.status, callback.ended) == (200, [True, True])


async def test_a_failure_hook_has_a_time_limit_too():
    hanging = Hangs(FAILURE, hook_timeout=0.001)
    response, _ = await asked(Says(PRE, raises(HTTPException(403, "no"))), hanging)
    assert (response.status, hanging.ended) == (403, [True])


def test_limits_are_the_callbacks_or_the_gates():
    (hook,) = hooks(Says(PRE, None), timeout=5.0, on_error="allow")
    assert (hook.timeout, hook.on_error, hook.name) == (5.0, "allow", f"Says.{PRE}")
    own = Says(PRE, None, hook_timeout=1, on_hook_error="reject")
    (hook,) = hooks(own, timeout=5.0, on_error="allow")
    assert (hook.timeout, hook.on_error) == (1, "reject")


@pytest.mark.parametrize(
    "attributes",
    [
        {"on_hook_error": "alow"},
        {"on_hook_error": True},
        {"hook_timeout": "5"},
        {"hook_timeout": -1},
        {"hook_timeout": 0},
        {"hook_timeout": True},
        {"hook_timeout": float("inf")},
        {"hook_timeout": float("nan")},
    ],
    ids=repr,
)
def test_a_wrong_attribute_of_a_callback_is_refused_at_the_start(attributes):
    (name,) = attributes
    with pytest.raises(ConfigError, match=f"Says.{name}: expected"):
        LLMGate(Upstream(), callbacks=[Says(PRE, None, **attributes)])


async def test_the_first_refusal_ends_the_chain():
    ran = []
    after = Says(PRE, lambda **_: ran.append(True))
    for exc in (HTTPException(403, "no"), ValueError("crash")):
        _, upstream = await asked(Says(PRE, raises(exc)), after)
        assert (upstream.calls, ran) == ([], [])


async def test_secrets_stay_out_of_log_and_errors(caplog):
    """Neither the caller's key nor the client's body is in anything the gate writes itself."""
    caplog.set_level(logging.DEBUG)
    headers = [*JSON, ("authorization", "Bearer sk-of-the-caller"), ("cookie", "session=of-the-caller")]
    body = chat(messages=[{"role": "user", "content": "text-of-the-caller"}])
    for method in (PRE, MODERATION, SUCCESS):
        for does in (raises(ValueError()), lambda **_: [1]):
            response, _ = await asked(Says(method, does), body=body, headers=headers, on_hook_error="reject")
            assert b"of-the-caller" not in response.body
    bad_response = Upstream(answer(b"no JSON"))
    await asked(Says(SUCCESS, lambda **_: None), body=body, headers=headers, upstream=bad_response)
    assert len(caplog.records) >= 5
    assert "of-the-caller" not in caplog.text


async def test_failures_are_told_with_their_traceback():
    told = []
    try:
        raise ValueError("boom")
    except ValueError as exc:
        original = exc
    failure_hooks = hooks(Says(FAILURE, lambda **arguments: told.append(arguments)), FAILURE)
    assert await report_failure(failure_hooks, original, {"a": 1}, UserAPIKeyAuth()) is None
    ((arguments),) = told
    assert arguments["request_data"] == {"a": 1}
    assert arguments["original_exception"] is original
    assert arguments["traceback_str"].startswith("Traceback")
    assert arguments["traceback_str"].endswith("ValueError: boom\n")


def test_a_failed_hook_tells_the_client_nothing():
    error = HookFailedError(f"Handler.{PRE}")
    assert (error.status_code, error.message, error.hook) == (500, "Internal server error", f"Handler.{PRE}")
