"""Transcripts: their streams rewritten, their texts that are no JSON, what guides them."""

from __future__ import annotations

import anyio
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.shapes import transcription
from tests.harness import Upstream, answer
from tests.multipart import TRANSCRIPTIONS, fields, form_request

pytestmark = pytest.mark.anyio

DELTA, SEGMENT, DONE = (f"transcript.text.{kind}" for kind in ("delta", "segment", "done"))


@pytest.fixture
def anyio_backend():
    return "asyncio"


def delta(text, **more):
    return {"type": DELTA, "delta": text, **more}


def segment(text, **more):
    return {"type": SEGMENT, "text": text, **more}


def done(text, **more):
    return {"type": DONE, "text": text, **more}


def wire(*events):
    """A stream as OpenAI writes it: lines that end with CRLF, and `[DONE]`."""
    lines = [orjson.dumps(event) for event in events] + [b"[DONE]"]
    return b"".join(b"data: %b\r\n\r\n" % line for line in lines)


def upstream(*events):
    return Upstream(answer(wire(*events), content_type="text/event-stream; charset=utf-8"))


def events_of(body):
    *events, last = [line.removeprefix(b"data: ") for line in body.splitlines() if line]
    assert last == b"[DONE]"
    return [orjson.loads(event) for event in events]


async def streamed(app, *callbacks, **settings):
    body = fields(model="gpt-4o-transcribe", stream="true")
    return await form_request(body).to(LLMGate(app, callbacks=callbacks, **settings))


class Texts(CallHooks):
    """A text hook."""

    def __init__(self, act, window=0):
        self.act = act
        self.streaming_window = window
        self.seen = []

    async def async_post_call_streaming_hook(self, response):
        self.seen.append((str(response), response.channel, response.index))
        return self.act(response)


def masked(text):
    return text.replace("secret", "******")


WORDS = ["My", " sec", "ret", " is", " safe"]
USAGE = {"usage": {"type": "tokens", "total_tokens": 5}}

STREAMS = {
    "pieces": ([*map(delta, WORDS), done("My secret is safe", **USAGE)], "My ****** is safe"),
    "pieces, the whole without spaces at the ends": (
        [delta(" My secret"), delta(" is safe "), done("My secret is safe")],
        " My ****** is safe ",
    ),
    "pieces of segments": (
        [
            *[delta(word, segment_id="s1") for word in ("My", " sec", "ret")],
            segment("My secret", id="s1", start=0.0, end=1.0, speaker="A"),
            *[delta(word, segment_id="s2") for word in (" is", " safe")],
            segment(" is safe", id="s2", start=1.0, end=2.0, speaker="B"),
            done("My secret is safe"),
        ],
        "My ****** is safe",
    ),
    "segments that come whole": (
        [segment("My secret", id="s1"), segment("is safe", id="s2"), done("My secret is safe")],
        "My ****** is safe",
    ),
    "segments without ids": (
        [segment("My secret", start=0), segment("is safe", start=1), done("My secret is safe")],
        "My ****** is safe",
    ),
    "the whole alone": ([done("My secret is safe")], "My ****** is safe"),
}

each = pytest.mark.parametrize(("events", "text"), STREAMS.values(), ids=STREAMS)


@each
async def test_a_rewritten_text_is_rewritten_everywhere(events, text):
    """Pieces, segments and the whole say the same, and none has what the hook took out."""
    response = await streamed(upstream(*events), Texts(masked, window=10))
    got = events_of(response.body)
    assert b"secret" not in response.body
    assert got[-1]["text"] == text
    pieces = [event["delta"] for event in got if event["type"] == DELTA]
    segments = [event["text"] for event in got if event["type"] == SEGMENT]
    assert not pieces or "".join(pieces) == text
    assert not segments or " ".join(map(str.strip, segments)) == text
    assert {event["type"] for event in got} == {event["type"] for event in events}
    assert got[-1].get("usage") == events[-1].get("usage")


@each
@pytest.mark.parametrize("window", [0, 10])
async def test_an_unchanged_stream_says_the_same(events, text, window):
    """Without a window the bytes are the app's own; with one, the whole is."""
    hook = Texts(lambda piece: None, window)
    response = await streamed(upstream(*events), hook)
    if not window:
        assert response.body == wire(*events)
    assert events_of(response.body)[-1] == events[-1]
    assert {(channel, index) for _, channel, index in hook.seen} == {("text", 0)}


async def test_log_probabilities_go_with_the_text_they_spell():
    """They stay where nothing changed."""
    logprobs = [{"token": "x", "logprob": -1, "bytes": []}]
    events = [delta("a", logprobs=logprobs), delta("secret", logprobs=logprobs), done("asecret", logprobs=logprobs)]
    got = events_of((await streamed(upstream(*events), Texts(masked))).body)
    assert [event["logprobs"] for event in got] == [logprobs, [], []]


async def test_a_text_that_is_dropped_is_gone_from_the_whole():
    response = await streamed(upstream(*map(delta, WORDS), done("".join(WORDS))), Texts(lambda piece: ""))
    assert events_of(response.body)[-1] == done("")


async def test_a_stream_that_breaks_off_lets_go_of_what_is_held():
    """The end of a stream that has no `done` is the end of its text."""
    body = wire(delta("abc")).removesuffix(b"data: [DONE]\r\n\r\n")
    app = Upstream(answer(body, content_type="text/event-stream"))
    response = await streamed(app, Texts(lambda piece: None, window=10))
    assert b'{"type":"transcript.text.delta","delta":"abc"}' in response.body


async def test_events_of_other_kinds_pass():
    """What is no text, or has none, is left alone."""
    events = [{"type": "x", "text": "secret"}, {"type": DELTA}, delta(""), segment(None, id="s"), {"type": DONE}]
    response = await streamed(upstream(*events), Texts(masked))
    assert response.body == wire(*events)


class Stops(CallHooks):
    def __init__(self, raises):
        self.raises = raises

    async def async_post_call_streaming_hook(self, response):
        if "secret" in response:
            raise self.raises


class StopsBeside(CallHooks):
    """A moderation hook that waits for the stream to have begun, and refuses."""

    def __init__(self, request):
        self.request = request

    async def async_moderation_hook(self, data):
        while not self.request.sent:
            await anyio.lowlevel.checkpoint()
        return "no more"


@pytest.mark.parametrize("said", [True, False])
async def test_a_rejection_in_mid_stream(said):
    """The message is the last piece and the end of the whole; after the whole there is nothing to add."""
    first = [delta("Hello ")] if said else [done("Hello ")]

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        body = wire(*first).removesuffix(b"data: [DONE]\r\n\r\n")
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await receive()

    request = form_request(fields(model="m", stream="true"))
    response = await request.to(LLMGate(app, callbacks=[StopsBeside(request)], moderation_mode="cut"))
    last = [delta("no more"), done("Hello no more")] if said else []
    assert events_of(response.body) == [*first, *last]


async def test_an_error_in_mid_stream():
    """What was said before stays; then comes the error in the envelope, and the end."""
    response = await streamed(upstream(delta("a"), delta("secret")), Stops(HTTPException(403, "no")))
    said, error = events_of(response.body)
    assert (said, error["error"]["message"], error["error"]["code"]) == (delta("a"), "no", "403")


async def test_an_iterator_that_returns_early():
    """The whole is what was let through."""

    class Early(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            chunk = await anext(response)
            assert chunk.logprobs is None
            yield chunk

    response = await streamed(upstream(*map(delta, WORDS), done("x")), Early())
    assert events_of(response.body) == [delta("My"), done("My")]


async def test_pieces_that_an_iterator_changed_are_changed_in_the_whole():
    class Iterates(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            async for chunk in response:
                if chunk.delta:
                    chunk.delta = masked(chunk.delta)
                yield chunk

    response = await streamed(upstream(delta("a secret"), done("a secret")), Iterates())
    assert events_of(response.body) == [delta("a ******"), done("a ******")]


LOGGED = {
    "pieces and the whole": ([delta("a"), delta("b"), done("ab", **USAGE)], {"text": "ab", **USAGE}),
    "pieces alone": ([delta("a"), delta("b")], {"text": "ab"}),
    "segments": ([segment("a", id="s"), done("a")], {"text": "a", "segments": [{"text": "a", "id": "s"}]}),
    "other events": ([{"type": "x"}], None),
}


@pytest.mark.parametrize(("events", "response"), LOGGED.values(), ids=LOGGED)
async def test_a_stream_is_put_together_for_the_log(events, response):
    logged = []

    class Logs(CallHooks):
        async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
            logged.append(response_obj)

    await streamed(upstream(*events), Logs())
    assert logged == [response]


class Whole(CallHooks):
    """A success hook that notes the text, and changes it."""

    def __init__(self, change=lambda text: None):
        self.change = change
        self.seen = []

    async def async_post_call_success_hook(self, response):
        self.seen.append(response.model_dump())
        new = self.change(response.text)
        if new is not None:
            response.text = new


SRT = "1\n00:00:00,000 --> 00:00:01,000\nMy secret \u00fc safe\n"

ANSWERS = {
    "text": ("text", "text/plain; charset=utf-8", "My secret\n"),
    "subtitles": ("srt", "application/x-subrip", SRT),
    "subtitles as text": ("srt", "text/plain", SRT),
    "subtitles of the web": ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\nsecret\n"),
    "text of no type": ("text", "", "My secret\n"),
    "text that nobody asked for": (None, "text/plain", "My secret\n"),
    "text that looks like JSON": ("text", "text/plain", '{"secret":1}'),
}

answers = pytest.mark.parametrize(("asked", "kind", "text"), ANSWERS.values(), ids=ANSWERS)


async def transcribed(app, hook, asked=None, path=TRANSCRIPTIONS):
    body = fields(model="whisper-1", **({"response_format": asked} if asked else {}))
    return await form_request(body, path).to(LLMGate(app, callbacks=[hook]))


@answers
async def test_a_bare_text_is_seen_and_changed(asked, kind, text):
    """Success hooks see it as `text`; what they change goes out as text, under the app's own type."""
    hook = Whole(masked)
    response = await transcribed(Upstream(answer(text.encode(), content_type=kind)), hook, asked)
    assert hook.seen == [{"text": text}]
    assert response.body.decode() == masked(text)
    assert (response.header("content-type"), response.header("content-length")) == (kind, str(len(response.body)))


@answers
async def test_a_bare_text_that_no_hook_changes_goes_on_as_it_is(asked, kind, text):
    app = Upstream(answer(text.encode(), content_type=kind, headers=[("etag", '"x"')]))
    response = await transcribed(app, Whole(), asked, "/v1/audio/translations")
    assert response.sent == app.messages


async def test_a_bare_text_is_logged_as_it_went_out():
    """Log events have it as `text`; of one that is no UTF-8 they have nothing."""
    logged = []

    class Logs(CallHooks):
        async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
            logged.append(response_obj)

    for body in (b"a text", b"\xff"):
        app = Upstream(answer(body, content_type="text/plain"))
        assert (await transcribed(app, Logs(), "text")).body == body
    assert logged == [{"text": "a text"}, None]


async def test_a_transcript_in_json():
    """It is seen whole, whatever else it has, and stays JSON."""
    hook = Whole(masked)
    for kind in ("application/json", "text/plain"):
        app = Upstream(answer(b'{"text":"a secret","segments":[]}', content_type=kind))
        response = await transcribed(app, hook, "verbose_json")
        assert orjson.loads(response.body) == {"text": "a ******", "segments": []}
        assert response.header("content-type") == kind
    assert hook.seen == [{"text": "a secret", "segments": []}] * 2


BAD_ANSWERS = {
    "not UTF-8": (b"\xff", "text/plain", []),
    "a coding nobody knows": (b"x", "text/plain", [("content-encoding", "br")]),
    "text in place of JSON": (b"x", "application/json", []),
}


@pytest.mark.parametrize(("body", "kind", "headers"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_what_cannot_be_read_is_not_passed_on(body, kind, headers):
    """An answer that no success hook could look at is a 502."""
    app = Upstream(answer(body, content_type=kind, headers=headers))
    assert (await transcribed(app, Whole(), "text")).status == 502


@pytest.mark.parametrize("new", [1, {"a": "b"}])
async def test_a_text_that_is_none_is_the_hooks_fault(new, caplog):
    response = await transcribed(Upstream(answer(b"x", content_type="text/plain")), Whole(lambda text: new), "text")
    assert (response.status, response.error()["code"]) == (500, "internal_error")
    assert "`text`" in caplog.text


async def test_other_endpoints_have_no_bare_texts():
    """Plain text there is JSON of a wrong label, or unreadable, as ever."""
    app = Upstream(answer(b"x", content_type="text/plain"))
    response = await transcribed(app, Whole(), path="/v1/images/edits")
    assert response.status == 502


async def test_streams_of_images_have_no_text():
    """An image edit's events pass the text hooks as they came."""
    body = b'event: image_edit.completed\ndata: {"type":"image_edit.completed","b64_json":"secret"}\n\n'
    hook = Texts(masked)
    app = Upstream(answer(body, content_type="text/event-stream"))
    request = form_request(fields(model="m", stream="true"), "/v1/images/edits")
    assert (await request.to(LLMGate(app, callbacks=[hook]))).body == body
    assert hook.seen == []


def test_what_guides_a_transcription():
    """The prompt, the words to listen for and the names of speakers are what a model reads."""
    data = {"prompt": "a", "keywords": ["b", "c"], "known_speaker_names": ["d"], "model": "m", "file": object()}
    for name in ("audio_transcription", "transcription", "audio_translation", "translation"):
        assert get_formatted_prompt(data, name) == "a\nb\nc\nd"
    assert transcription.prompt_text({}) == ""
