"""Text hooks are shown every piece a client could show, and what they hold back or refuse comes out in good form."""

from __future__ import annotations

import itertools

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection
from tests.harness import Request, Response, Upstream
from tests.test_streams import (
    DONE,
    SECRET,
    START,
    TEXT,
    Texts,
    after,
    chunk,
    chunks_of,
    mask,
    messages,
    raises,
    said,
    streamed,
    text_chunk,
    texts,
    upper,
    wire,
)

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

USAGE = {**chunk(), "choices": [], "usage": {"total_tokens": 3}}
CRASHED = {
    "error": {
        "message": "Internal server error",
        "type": "internal_server_error",
        "param": None,
        "code": "internal_error",
    }
}


def keeps(window=50, channels=("text",)):
    """A hook that changes nothing, and yet holds back."""
    return Texts(lambda piece: None, window, channels)


def order(body):
    """What a stream says, as words in order: its texts, its finishes, its usage, its errors and its end."""
    words = []
    for event in body.decode().split("\n\n"):
        data = event.removeprefix("data: ")
        if data in ("", "[DONE]"):
            words += [data] * bool(data)
            continue
        got = orjson.loads(data)
        words += [word for word in ("usage", "error") if word in got]
        for choice in got.get("choices", ()):
            words += [*(value for value in choice["delta"].values() if value), choice["finish_reason"]]
    return [word for word in words if word]


UNREAD = {
    "half a surrogate pair": rb'"content":"%s \ud83d"',
    "an infinite logprob": b'"content":"%s","x":-Infinity',
    "no number": b'"x":NaN,"content":"%s"',
    "half a character": b'"content":"%s \xe2\x82"',
}


@pytest.mark.parametrize("delta", UNREAD.values(), ids=UNREAD)
async def test_what_is_no_strict_json_is_looked_at_all_the_same(delta):
    """Clients show it, so a hook must see it; untouched, it keeps its bytes."""
    body = b'data: {"choices":[{"index":0,"delta":{' + delta % SECRET.encode() + b"}}]}\n\n" + wire(DONE)
    assert (await streamed(body, keeps(0))).body == body
    response = await streamed(body, mask(0))
    assert SECRET.encode() not in response.body
    assert b"*" * len(SECRET) in response.body


async def test_the_halves_of_a_surrogate_pair_pass_a_window():
    body = b"".join(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % half for half in (rb"\ud83d", rb"\ude00"))
    response = await streamed(body + wire(DONE), keeps(1))
    assert texts_of_any(response).encode("utf-16", "surrogatepass").decode("utf-16") == "😀"


def texts_of_any(response):
    """The text of a stream whose chunks have no index."""
    return "".join(choice["delta"]["content"] for got in chunks_of(response) for choice in got["choices"])


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": ["x"], "message": {"content": 5}}]},
        {"choices": [{"delta": None, "finish_reason": 7}]},
        {"choices": [{"index": "0", "delta": {"tool_calls": [{"index": [], "function": {"arguments": "x"}}]}}]},
        {"choices": [{"delta": {"tool_calls": {"function": []}, "content": {"text": "a"}}}]},
        {"choices": {"delta": {"content": 1}}},
        {"choices": None},
        {"choices": "x", "id": 5},
        {"error": ""},
        {},
    ],
    ids=repr,
)
async def test_odd_chunks_pass_as_they_came(odd):
    body = wire(odd, DONE)
    assert (await streamed(body, keeps(0, ("text", "tool_calls", "refusal", "reasoning")))).body == body


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "content", "text", "index", "finish_reason", "tool_calls"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=60, deadline=None)
async def test_whatever_json_comes_passes(value):
    body = wire({"choices": value}, {"choices": [{"index": 0, "delta": value}]}, DONE)
    assert (await streamed(body, Texts(lambda piece: None))).body == body


async def test_one_channel_may_be_named_alone():
    body = wire(chunk({"refusal": "no", "content": "yes"}), chunk({}, "stop"), DONE)
    response = await streamed(body, Texts(str.upper, channels="refusal"))
    assert (texts(response), texts(response, "refusal")) == ({0: "yes"}, {0: "NO"})


async def test_no_channel_named_is_the_text():
    assert texts(await streamed(said("a"), Texts(str.upper, channels=None))) == {0: "A"}
    assert texts(await streamed(said("a"), Texts(str.upper, channels=()))) == {0: "A"}


async def test_a_callbacks_own_window_counts_be_it_none_at_all():
    hook = keeps(0)
    await streamed(said("a", "b"), hook, streaming_window=10)
    assert [piece for piece, *_ in hook.pieces] == ["a", "b"]


async def test_texts_have_windows_of_their_own():
    """A secret is cut over the pieces of one choice and channel, with those of others between; theirs are no part."""
    head, tail = SECRET[:6], SECRET[6:]
    deltas = [
        *((0, {"content": head}), (1, {"content": head}), (0, {"refusal": tail})),
        *((1, {"reasoning_content": tail}), (0, {"content": tail}), (1, {"content": "ret"}), (1, {"content": "ired"})),
    ]
    finishes = [chunk({}, "stop", index) for index in (0, 1)]
    body = wire(*(chunk(delta, index=index) for index, delta in deltas), *finishes, DONE)
    channels = ("text", "refusal", "reasoning")
    response = await streamed(body, Texts(lambda piece: piece.replace(SECRET, "?"), 20, channels))
    assert texts(response) == {0: "?", 1: head + "retired"}
    assert texts(response, "refusal") == {0: tail, 1: ""}
    assert texts(response, "reasoning_content") == {0: "", 1: tail}


@pytest.mark.parametrize("reason", ["", None], ids=repr)
async def test_an_empty_finish_reason_finishes_nothing(reason):
    """Some servers send one with every chunk."""
    body = wire(chunk({"content": SECRET[:5]}, reason), chunk({"content": SECRET[5:]}, reason), chunk({}, "stop"), DONE)
    response = await streamed(body, mask())
    assert texts(response) == {0: "*" * len(SECRET)}


async def test_a_choice_that_goes_on_behind_its_finish_starts_anew():
    body = wire(chunk({"content": "a"}, "stop"), chunk({"content": "b"}), chunk({"content": "c"}), DONE)
    response = await streamed(body, keeps())
    assert order(response.body) == ["a", "stop", "bc", "[DONE]"]


ENDINGS = {
    "finish": ([chunk({}, "stop"), USAGE, DONE], ["abc", "stop", "usage", "[DONE]"]),
    "usage without a finish": ([USAGE, DONE], ["usage", "abc", "[DONE]"]),
    "the end alone": ([DONE], ["abc", "[DONE]"]),
    "an error": ([{"error": {"message": "x"}}, DONE], ["abc", "error", "[DONE]"]),
    "nothing": ([], ["abc"]),
    "a finish of another choice": ([chunk({}, "stop", 1), chunk({}, "stop"), DONE], ["stop", "abc", "stop", "[DONE]"]),
    "text behind the end": ([DONE, chunk({"content": "d"})], ["abc", "[DONE]", "d"]),
}


@pytest.mark.parametrize(("ending", "words"), ENDINGS.values(), ids=ENDINGS)
async def test_held_text_comes_before_what_ends_it(ending, words):
    body = wire(chunk({"content": "a"}), chunk({"content": "bc"}), *ending)
    assert order((await streamed(body, keeps())).body) == words


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"], ids=["nothing", "LF", "CRLF", "CR"])
async def test_held_text_does_not_run_into_an_event_that_the_end_cut(end):
    body = wire(chunk({"content": "abc"})) + b"data: " + orjson.dumps(USAGE) + end
    response = await client_of(body, keeps())
    assert response.body == rewritten(b"abc") + b"data: " + orjson.dumps(USAGE) + end + b"\n\n" + MORE
    assert (await client_of(body, keeps(0))).body == body


@pytest.mark.parametrize("rest", [b'data: {"choi', b"data: ", b": pi", b"event: x\n"], ids=repr)
async def test_half_an_event_comes_last(rest):
    response = await client_of(wire(chunk({"content": "abc"})) + rest, keeps())
    assert response.body == rewritten(b"abc") + MORE + rest


SAYS_ABC = {"index": 0, "delta": {"content": "abc"}, "logprobs": None, "finish_reason": None}
MORE = wire({**chunk(), "choices": [SAYS_ABC]})


def rewritten(held):
    return wire(chunk({"content": held.decode()})).replace(held, b"")


async def client_of(body, *callbacks, **keywords):
    """What a client gets of a stream that may end inside of an event."""
    request = Request(b'{"model":"m","stream":true,"messages":[]}')
    return await request.to(LLMGate(Upstream(messages([body])), callbacks=callbacks, **keywords))


async def test_perplexitys_text_so_far_is_what_was_released():
    def both(piece, so_far, finish=None):
        got = chunk({"content": piece}, finish)
        got["choices"][0]["message"] = {"role": "assistant", "content": so_far}
        return got

    body = wire(both(SECRET[:4], SECRET[:4]), both(SECRET[4:] + "!", SECRET + "!"), both("", SECRET + "!", "stop"))
    response = await streamed(body, mask())
    masked = "*" * len(SECRET) + "!"
    so_far = [
        choice["message"]["content"] for got in chunks_of(response) for choice in got["choices"] if "message" in choice
    ]
    assert so_far[0] == ""
    assert (texts(response)[0], so_far[-1]) == (masked, masked)


async def test_each_hook_sees_what_the_one_before_returned():
    hooks = [Texts(lambda piece: piece + "1"), Texts(lambda piece: None), Texts(lambda piece: piece + "2")]
    assert texts(await streamed(said("a", "b"), *hooks)) == {0: "a12b12"}
    assert [[piece for piece, *_ in hook.pieces] for hook in hooks] == [["a", "b"], ["a1", "b1"], ["a1", "b1"]]


async def test_a_hook_behind_one_that_dropped_the_piece_is_not_called():
    last = keeps(0)
    response = await streamed(said("a"), Texts(lambda piece: ""), last)
    assert (texts(response), last.pieces) == ({0: ""}, [])


async def test_a_hook_is_given_what_its_signature_asks_for():
    got = []

    class Asks(CallHooks):
        async def async_pre_call_hook(self, data):
            data["litellm_metadata"] = {"mine": 1}

        async def async_post_call_streaming_hook(self, response, user_api_key_dict, data, request_data):
            got.append((user_api_key_dict.metadata, data["litellm_metadata"], request_data is data))

    await streamed(said("a"), Asks())
    assert got == [({}, {"mine": 1}, True)]


WRONG = [1, b"a", ["a"], {}, True, object]


@pytest.mark.parametrize("value", WRONG, ids=repr)
async def test_a_wrong_value_is_a_crash_that_tells_nothing(value):
    first = await streamed(said("a"), Texts(lambda piece: value))
    assert (first.status, {"error": first.error()}) == (500, CRASHED)
    later = await streamed(said("a", "b"), Texts(lambda piece: value if piece == "b" else None))
    assert (later.status, later.body) == (200, said("a")[: len(said("a")) - len(END)] + wire(CRASHED, DONE))


END = wire(chunk({}, "stop"), DONE)


@pytest.mark.parametrize("value", WRONG, ids=repr)
async def test_a_wrong_value_may_be_allowed(value):
    """Then the piece is as the hook was given it."""
    hook = Texts(lambda piece: value, 3)
    hook.on_hook_error = "allow"
    assert texts(await streamed(said("a", "bcdef"), upper(), hook)) == {0: "ABCDEF"}


class Slow(CallHooks):
    """A text hook that takes for ever from its second piece on."""

    hook_timeout = 0.01

    def __init__(self):
        self.calls = itertools.count()

    async def async_post_call_streaming_hook(self):
        if next(self.calls):
            await anyio.sleep_forever()


async def test_a_hook_that_takes_too_long_is_a_crash():
    assert (await streamed(said("a", "b"), Slow())).body.endswith(wire(CRASHED, DONE))
    assert texts(await streamed(said("a", "b"), Slow(), on_hook_error="allow")) == {0: "ab"}


REFUSALS = {
    "an HTTP exception": (HTTPException(403, {"error": "no more"}), 403),
    "a crash": (ValueError("inside"), 500),
}


@pytest.mark.parametrize(("exc", "status"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", TEXT])
async def test_a_refusal_is_a_status_at_the_first_piece_and_an_event_later(exc, status, path):
    one = chunk({"content": "a"}) if path != TEXT else text_chunk("a")
    first = await streamed(wire(one, one, DONE), after(0, exc), path=path)
    assert (first.status, first.header("content-type")) == (status, "application/json")
    later = await streamed(wire(one, one, DONE), after(1, exc), path=path)
    assert (later.status, later.body) == (200, wire(one, {"error": first.error()}, DONE))
    assert b"inside" not in later.body + first.body


@pytest.mark.parametrize("path", ["/v1/chat/completions", TEXT])
async def test_a_message_closes_every_open_choice(path):
    """Choice 0 has finished, 1 is open, 2 has not begun."""
    made = (lambda text, finish, index: chunk({"content": text}, finish, index)) if path != TEXT else text_chunk
    events = [made("a", None, 0), made("b", None, 1), made("", "length", 0), made("c", None, 1)]
    response = await streamed(wire(*events, DONE), after(2, Rejection("Enough. ☂")), path=path)
    assert response.body.startswith(wire(*events[:3]))
    assert texts(response) == {0: "a", 1: "bEnough. ☂"}
    finishes = [
        (choice["index"], choice["finish_reason"])
        for got in chunks_of(response)
        for choice in got["choices"]
        if choice["finish_reason"]
    ]
    assert finishes == [(0, "length"), (1, "content_filter")]
    assert {got["id"] for got in chunks_of(response)} == {events[0]["id"]}
    assert response.body.endswith(wire(DONE))


async def test_a_message_at_the_first_piece_is_a_whole_answer():
    response = await streamed(said("a"), after(0, Rejection("Enough.")))
    assert (response.status, texts(response)) == (200, {0: "Enough."})
    assert order(response.body) == ["assistant", "Enough.", "stop", "[DONE]"]


async def test_held_text_is_not_shown_when_its_stream_is_refused():
    """The refusal may be for what is held."""
    response = await streamed(said("open ", "and ", "shut"), Texts(shut, 5))
    assert texts(response) == {0: "open"}
    assert order(response.body)[-2:] == ["error", "[DONE]"]


def shut(piece):
    if "shut" in piece:
        raise HTTPException(403, "shut")


@pytest.mark.parametrize("openers", [0, 1, 16, 17, 18, 30])
async def test_openers_are_lost_for_nobody(openers):
    """Before a refusal that has a status of its own they go nowhere; after they have gone out, all of them have."""
    role = chunk({"role": "assistant", "content": ""})
    body = wire(*[role] * openers, chunk({"content": "a"}), DONE)
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        response = await streamed(body, Texts(raises(HTTPException(403, "no"))), pieces=pieces)
        if openers <= 16:
            assert (response.status, response.error()["message"]) == (403, "no")
        else:
            assert response.body.startswith(wire(*[role] * openers) + b'data: {"error"')


class Talker:
    """An app that says a and b, and of which a test can see that it has gone."""

    def __init__(self):
        self.gone = anyio.Event()

    async def __call__(self, scope, receive, send):
        await receive()
        await send(START)
        try:
            await send({"type": "http.response.body", "body": wire(chunk({"content": "a"})), "more_body": True})
            await send({"type": "http.response.body", "body": wire(chunk({"content": "b"})), "more_body": True})
        finally:
            self.gone.set()


@pytest.mark.parametrize("count", [0, 1])
async def test_a_failure_hook_may_take_longer_than_the_apps_grace(count):
    app, told = Talker(), []

    class Reports(CallHooks):
        async def async_post_call_failure_hook(self, original_exception):
            await app.gone.wait()
            await checkpoint()
            told.append(original_exception)

    exc = HTTPException(403, "no")
    request = Request(b'{"model":"m","stream":true,"messages":[]}')
    response = await request.to(LLMGate(app, callbacks=[after(count, exc), Reports()], cancel_grace=0.001))
    assert told == [exc]
    assert b'"message":"no"' in response.body


async def test_a_slow_client_gets_the_end_though_the_app_is_cancelled():
    request, app = Request(b'{"model":"m","stream":true,"messages":[]}'), Talker()

    async def send(message):
        if b'"error"' in message.get("body", b""):
            await app.gone.wait()
            await checkpoint()
        await request.send(message)

    gate = LLMGate(app, callbacks=[after(1, HTTPException(403, "no"))], cancel_grace=0.001)
    await gate(request.scope, request.receive, send)
    assert Response(request.sent).body.endswith(b'"code":"403"}}\n\n' + wire(DONE))


async def test_what_the_app_says_after_a_refusal_goes_nowhere():
    """Not to hooks either; the app hears that its client is gone."""
    hook, heard = after(1, HTTPException(403, "no")), []
    request = Request(b'{"model":"m","stream":true,"messages":[]}')

    async def app(scope, receive, send):
        await receive()
        await send(START)
        for text in "abcd":
            await send({"type": "http.response.body", "body": wire(chunk({"content": text})), "more_body": True})
        heard.append(await receive())
        await send({"type": "http.response.body", "body": b"data: unended"})

    response = await request.to(LLMGate(app, callbacks=[hook], cancel_grace=60))
    assert [piece for piece, *_ in hook.pieces] == ["a", "b"]
    assert heard == [{"type": "http.disconnect"}]
    assert order(response.body) == ["a", "error", "[DONE]"]


async def test_a_piece_in_a_hooks_hands_when_the_stream_is_cut_does_not_follow_the_end():
    """Moderation cuts the stream while a text hook looks at a piece, and the hook lets it pass."""
    looking, passes = anyio.Event(), anyio.Event()

    class Looks(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            if response == "b":
                looking.set()
                await passes.wait()

        async def async_moderation_hook(self):
            await looking.wait()
            return "Enough."

        async def async_post_call_failure_hook(self):
            passes.set()
            await anyio.wait_all_tasks_blocked()

    request = Request(b'{"model":"m","stream":true,"messages":[]}')
    events = [chunk({"content": "a"}), chunk({"content": "b"}), chunk({"content": "c"}), chunk({}, "stop")]

    async def app(scope, receive, send):
        await receive()
        await send(START)
        for event in events:
            await send({"type": "http.response.body", "body": wire(event), "more_body": True})

    response = await request.to(LLMGate(app, callbacks=[Looks()], moderation_mode="cut", cancel_grace=60))
    assert order(response.body) == ["a", "Enough.", "content_filter", "[DONE]"]


async def test_an_exception_that_a_hook_returns_is_raised():
    response = await streamed(said("a", "b"), Texts(lambda piece: HTTPException(403, "no") if piece == "b" else None))
    assert order(response.body) == ["assistant", "a", "error", "[DONE]"]
