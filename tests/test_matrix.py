"""What comes of a call, whatever a hook does and wherever it stands: a table, and every cell of it tried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import anyio
import httpx2
import openai
import orjson
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import DONE, EVER, START, App, Client, Judge, Recorder, event, piece, tasks_living, told
from tests.harness import Response, answer

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

MESSAGE = "not here"


def chat_chunk(content, finish_reason=None):
    return choice_chunk({"delta": {"content": content}, "finish_reason": finish_reason})


def text_chunk(content, finish_reason=None):
    return choice_chunk({"text": content, "finish_reason": finish_reason})


def choice_chunk(choice):
    return {"id": "c", "model": "m", "choices": [{"index": 0, **choice}]}


@dataclass
class Shape:
    """One kind of endpoint: a request, the app's answer whole and in chunks, and how text is read."""

    path: str
    request: dict
    whole: dict
    chunks: list

    @property
    def has_text(self):
        return self.path != "/v1/embeddings"

    @staticmethod
    def text(choice):
        """The text of a choice, whole or in a chunk."""
        holder = choice.get("message") or choice.get("delta") or choice
        return holder.get("content") or holder.get("text") or ""


def shape(path, request, choice, chunk):
    chunks = [chunk("one "), chunk("two "), chunk("three", "stop")]
    return Shape(path, {"model": "m", **request}, {"id": "c", "choices": [{"index": 0, **choice}]}, chunks)


SHAPES = {
    "chat": shape(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"message": {"role": "assistant", "content": "one two three"}, "finish_reason": "stop"},
        chat_chunk,
    ),
    "text": shape("/v1/completions", {"prompt": "Hi"}, {"text": "one two three", "finish_reason": "stop"}, text_chunk),
    "embeddings": shape("/v1/embeddings", {"input": "Hi"}, {"embedding": [0.5]}, text_chunk),
}

# stage: outcomes: response: mode -> what the client reads, what becomes of the app.
#
# Responses are whole, read (a stream in which hooks look for text) or unread (a stream without text). What the client
# reads may come after the first chunk ("at 1") or the second. An app that fails no call is done; one that does is told
# at once, or cancelled where it can't listen because its message is on its way. A hook that hangs has no limit of its
# own: its client leaves it, but for the hooks whose end decides what is answered, which the gate's own limit ends.
ANY = "whole read unread"
MODES = "none hold cut"
MODERATED = "hold cut"
TABLE = [
    ("pre", "none allowed-crash allowed-timeout", ANY, MODES, "same", "done"),
    ("pre", "change", ANY, MODES, "same", "done"),
    ("pre", "string", ANY, MODES, "message", "uncalled"),
    ("pre", "exception returned", ANY, MODES, "403", "uncalled"),
    ("pre", "crash timeout hang", ANY, MODES, "500", "uncalled"),
    ("moderation early", "none change allowed-crash allowed-timeout", ANY, MODERATED, "same", "done"),
    ("moderation early", "string", ANY, MODERATED, "message", "told"),
    ("moderation early", "exception returned", ANY, MODERATED, "403", "told"),
    ("moderation early", "crash timeout", ANY, MODERATED, "500", "told"),
    ("moderation early", "hang", ANY, MODERATED, "nothing", "told"),
    ("moderation late", "none change allowed-crash allowed-timeout", ANY, MODERATED, "same", "done"),
    ("moderation late", "string", ANY, "hold", "message", "done"),
    ("moderation late", "exception returned", ANY, "hold", "403", "done"),
    ("moderation late", "crash timeout", ANY, "hold", "500", "done"),
    ("moderation late", "hang", ANY, "hold", "nothing", "told"),
    ("moderation late", "string", "whole unread", "cut", "message", "told"),
    ("moderation late", "exception returned", "whole unread", "cut", "403", "told"),
    ("moderation late", "crash timeout", "whole unread", "cut", "500", "told"),
    ("moderation late", "hang", "whole unread", "cut", "nothing", "told"),
    ("moderation late", "string", "read", "cut", "message at 2", "told"),
    ("moderation late", "exception returned", "read", "cut", "403 at 2", "told"),
    ("moderation late", "crash timeout", "read", "cut", "500 at 2", "told"),
    ("moderation late", "hang", "read", "cut", "nothing at 2", "told"),
    ("success", "none allowed-crash allowed-timeout", "whole", MODES, "same", "done"),
    ("success", "change", "whole", MODES, "changed", "done"),
    ("success", "string crash timeout", "whole", MODES, "500", "done"),
    ("success", "exception returned", "whole", MODES, "403", "done"),
    ("success", "hang", "whole", MODES, "nothing", "cancelled"),
    ("success", "none change string exception returned crash timeout", "read unread", MODES, "same", "done"),
    ("text 1", "none allowed-crash allowed-timeout", "read", MODES, "same", "done"),
    ("text 1", "change string", "read", MODES, "changed", "done"),
    ("text 1", "exception returned", "read", MODES, "403", "told"),
    ("text 1", "crash timeout", "read", MODES, "500", "told"),
    ("text 1", "hang", "read", MODES, "nothing", "cancelled"),
    ("text n", "none allowed-crash allowed-timeout", "read", MODES, "same", "done"),
    ("text n", "change string", "read", MODES, "changed", "done"),
    ("text n", "exception returned", "read", MODES, "403 at 1", "told"),
    ("text n", "crash timeout", "read", MODES, "500 at 1", "told"),
    ("text n", "hang", "read", MODES, "nothing at 1", "cancelled"),
    ("text 1", "none change string exception returned crash timeout", "whole unread", MODES, "same", "done"),
    ("iterator 1", "none allowed-crash allowed-timeout", "read", MODES, "same", "done"),
    ("iterator 1", "change", "read", MODES, "changed", "done"),
    ("iterator 1", "exception", "read", MODES, "403", "told"),
    ("iterator 1", "string returned crash timeout", "read", MODES, "500", "told"),
    ("iterator 1", "hang", "read", MODES, "nothing", "cancelled"),
    ("iterator n", "none allowed-crash allowed-timeout", "read", MODES, "same", "done"),
    ("iterator n", "change", "read", MODES, "changed", "done"),
    ("iterator n", "exception", "read", MODES, "403 at 1", "told"),
    ("iterator n", "string returned crash timeout", "read", MODES, "500 at 1", "told"),
    ("iterator n", "hang", "read", MODES, "nothing at 1", "cancelled"),
    ("iterator 1", "none change string exception returned crash timeout", "whole unread", MODES, "same", "done"),
    ("failure", "none string crash timeout hang allowed-crash allowed-timeout", ANY, MODES, "429", "uncalled"),
    ("failure", "exception returned", ANY, MODES, "403 for 429", "uncalled"),
    (
        "headers",
        "none string exception returned crash timeout allowed-crash allowed-timeout",
        ANY,
        MODES,
        "same",
        "done",
    ),
    ("headers", "change", ANY, MODES, "header", "done"),
    ("headers", "hang", ANY, MODES, "nothing", "cancelled"),
]

# Where a hook stands, and the method it is.
METHODS = {
    "pre": "async_pre_call_hook",
    "moderation": "async_moderation_hook",
    "success": "async_post_call_success_hook",
    "text": "async_post_call_streaming_hook",
    "iterator": "async_post_call_streaming_iterator_hook",
    "failure": "async_post_call_failure_hook",
    "headers": "async_post_call_response_headers_hook",
}


@dataclass
class Case:
    """One cell of the table, for one shape."""

    stage: str
    outcome: str
    shape: Shape
    response: str
    mode: str
    reads: str
    app: str

    @property
    def stream(self):
        return self.response != "whole"

    @property
    def place(self):
        """The chunk at which a hook on a stream acts."""
        return {"1": 0, "n": 1}[self.stage[-1]]

    @property
    def failure(self):
        """What failure hooks and the log are told: a status, or the message's."""
        if self.stage == "failure":
            return "429"
        kind = self.reads.split()[0]
        return {"same": None, "changed": None, "header": None, "nothing": "499"}.get(kind, kind)

    @property
    def events(self):
        called = ["pre"] if self.app != "uncalled" else []
        if self.failure:
            return sorted([*called, "failure hook", "failure"])
        return sorted([*called, *["stream"][: self.stream], "success"])


def cases():
    for stage, outcomes, responses, modes, reads, app in TABLE:
        for outcome in outcomes.split():
            for response in responses.split():
                for name, each in SHAPES.items():
                    if response != "whole" and each.has_text != (response == "read"):
                        continue
                    for mode in modes.split():
                        case = Case(stage, outcome, each, response, mode, reads, app)
                        yield pytest.param(case, id=f"{stage}-{outcome}-{response}-{name}-{mode}")


def test_every_cell_has_one_row():
    ids = [case.id for case in cases()]
    assert len(ids) == len(set(ids))


class Acting:
    """A callback with one hook, that acts as a case wants."""

    def __init__(self, case):
        self.case = case
        self.let = anyio.Event()
        self.ended = anyio.Event()
        self.pieces = -1
        if "timeout" in case.outcome:
            self.hook_timeout = 1
        if "allowed" in case.outcome:
            self.on_hook_error = "allow"
        kind = case.stage.split()[0]
        setattr(self, METHODS[kind], getattr(self, kind))

    async def _act(self, change=None):
        await checkpoint()
        outcome = self.case.outcome.removeprefix("allowed-")
        if outcome in {"timeout", "hang"}:
            await anyio.sleep_forever()
        elif outcome == "exception":
            raise HTTPException(403, MESSAGE)
        elif outcome == "crash":
            raise ValueError("secret")
        elif outcome == "change":
            return change()
        return {"none": None, "string": MESSAGE, "returned": HTTPException(403, MESSAGE)}[outcome]

    async def pre(self, data):
        return await self._act(lambda: data.update(user="changed"))

    async def moderation(self, data):
        try:
            if self.case.stage == "moderation late":
                await self.let.wait()
            return await self._act(data.clear)
        finally:
            self.ended.set()

    async def success(self, response):
        return await self._act(lambda: response.update(changed=True))

    async def text(self, response):
        self.pieces += 1
        return await self._act(response.upper) if self.pieces == self.case.place else None

    async def iterator(self, response):
        async for chunk in response:
            self.pieces += 1
            if self.pieces == self.case.place:
                made = await self._act(lambda chunk=chunk: {**chunk, "choices": [changed(chunk["choices"][0])]})
                yield chunk if made is None else made
            else:
                yield chunk

    async def failure(self):
        return await self._act(lambda: None)

    async def headers(self):
        return await self._act(lambda: {"x-added": "yes"})


def changed(choice):
    """A choice of a chunk as a change leaves it."""
    copy = orjson.loads(orjson.dumps(choice))
    holder = copy.get("delta", copy)
    for name in ("content", "text"):
        if name in holder:
            holder[name] = holder[name].upper()
    return copy


class Refuses(CallHooks):
    """Makes the call fail, for failure hooks to look at."""

    async def async_pre_call_hook(self):
        raise HTTPException(429, "slow down")


def steps(case, judged, reached):
    """What the app does: its answer, all of it but the end at once where it is to hear of the call's own."""

    async def after_early_verdicts(receive, send):
        await judged.wait()

    async def here(receive, send):
        reached.set()

    if case.stream:
        *bodies, last = [*map(event, case.shape.chunks), DONE]
        start = START
    else:
        start, body = answer(orjson.dumps(case.shape.whole))
        bodies, last = [body["body"][:9]], body["body"][9:]
    if case.stage == "moderation late" and case.app == "told":
        bodies = bodies[:2]
    begin = [] if case.stage == "moderation early" and case.app == "told" else [after_early_verdicts]
    middle = [here, told] if case.app == "told" else []
    if case.stage == "moderation early":
        return [*begin, *middle, start, *map(piece, bodies), piece(last, more=False)]
    end = [] if (case.stage, case.outcome) == ("moderation late", "hang") else [piece(last, more=False)]
    return [*begin, start, *map(piece, bodies), *middle, *end, here]


# What the app's log says at the end. One that was told went on to its own end: a step of it waits for that.
LOGS = {
    "uncalled": [],
    "done": ["http.request", "done"],
    "told": ["http.request", "done"],
    "cancelled": ["http.request", "cancelled"],
}


@pytest.mark.parametrize("case", list(cases()))
async def test_the_matrix(case):
    acting, recorder, judge, reached = Acting(case), Recorder(), Judge(), anyio.Event()
    judge.release.set()
    callbacks = [acting, recorder]
    judged = anyio.Event()
    if case.stage == "failure":
        callbacks.append(Refuses())
    if case.stage == "moderation early":
        judged = acting.ended
    elif case.stage == "moderation late" or case.mode == "none":
        judged.set()
    else:
        callbacks.append(judge)
        judged = judge.ended
    app = App(*steps(case, judged, reached))
    gate = LLMGate(
        app,
        callbacks=callbacks,
        moderation_mode="hold" if case.mode == "none" else case.mode,
        cancel_grace=0 if case.app == "cancelled" else EVER,
    )
    client = Client(orjson.dumps({**case.shape.request, "stream": case.stream}), path=case.shape.path)
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        if case.stage == "moderation late":
            await reached.wait()
            await anyio.wait_all_tasks_blocked()
            acting.let.set()
        if case.outcome == "hang" and case.app != "uncalled":
            await anyio.wait_all_tasks_blocked()
            client.gone.set()
    await cancel_shielded_checkpoint()
    assert tasks_living() == before
    check_answer(case, client)
    check_account(case, recorder)
    assert app.log == LOGS[case.app]


def check_account(case, recorder):
    assert sorted(recorder.events) == case.events
    assert len(recorder.failures) == (2 if case.failure else 0)
    for exc in recorder.failures:
        assert str(getattr(exc, "status_code", "message")) == case.failure
        assert "secret" not in str(exc)


def check_answer(case, client):
    reads, _, place = case.reads.partition(" at ")
    if reads == "nothing":
        check_nothing(case, client, int(place or 0))
        return
    response = Response(client.sent)
    check_client(case, response, reads, int(place or 0))
    if reads in {"same", "changed", "header"}:
        check_through(case, response)
    elif place:
        check_end(case, response, reads, int(place))
    elif reads == "message":
        check_message(case, response)
    else:
        status = int(reads.split()[0])
        assert (response.status, response.error()["message"]) == (status, TEXTS[status])


TEXTS = {403: MESSAGE, 429: "slow down", 500: "Internal server error"}


def check_client(case, response, reads, place):
    """OpenAI's client hears what was said, and raises what was refused; it has no streams but those of text."""
    if case.response == "unread":
        return
    # Answers that differ in nothing that a client looks at are read once.
    body = re.sub(rb'(cmpl-|"created":)\w+', rb"\g<1>1", response.body)
    heard = heard_by_client(case.shape.path, case.stream, response.status, response.header("content-type"), body)
    texts = [case.shape.text(chunk["choices"][0]) for chunk in case.shape.chunks if case.shape.has_text]
    if reads == "message":
        said = "".join([*texts[:place], MESSAGE]) if case.shape.has_text else ""
        assert heard == (said, None if case.shape.has_text else (400, MESSAGE))
    elif reads in {"same", "changed", "header"}:
        if reads == "changed" and case.stream:
            texts[case.place] = case.shape.text(changed_by(case))
        assert heard == ("".join(texts), None)
    else:
        status = int(reads.split()[0])
        # Within a stream an error has no status any more.
        assert heard == ("".join(texts[:place]), (None if place else status, TEXTS[status]))


@cache
def heard_by_client(path, stream, status, content_type, body):
    """What OpenAI's client hears of an answer, and what it raises: the status, if it has one, and the message."""
    headers = {"content-type": content_type}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, headers=headers, content=body))
    said = ""
    with openai.OpenAI(
        base_url="http://test/v1", api_key="sk-x", max_retries=0, http_client=httpx2.Client(transport=transport)
    ) as client:
        create = {
            "/v1/chat/completions": lambda: client.chat.completions.create(messages=[], model="m", stream=stream),
            "/v1/completions": lambda: client.completions.create(prompt="Hi", model="m", stream=stream),
            "/v1/embeddings": lambda: client.post("/embeddings", cast_to=openai.types.Completion),
        }
        try:
            answer = create[path]()
            for part in answer if stream else [answer]:
                said += Shape.text(part.model_dump()["choices"][0])
        except openai.APIError as exc:
            return said, (getattr(exc, "status_code", None), exc.body["message"])
    return said, None


def check_nothing(case, client, chunks):
    """Nothing but whole chunks went out, and no end."""
    sent = b"".join(message.get("body", b"") for message in client.sent)
    assert sent == b"".join(map(event, case.shape.chunks[:chunks]))
    assert not client.answered.is_set()


def check_through(case, response):
    """The app's answer came through, with the one change that was asked for."""
    assert response.status == 200
    assert response.header("x-added") == ("yes" if case.reads == "header" else None)
    if not case.stream:
        expected = {**case.shape.whole, "changed": True} if case.reads == "changed" else case.shape.whole
        assert response.json() == expected
        return
    expected = list(case.shape.chunks)
    if case.reads == "changed":
        expected[case.place] = {**expected[case.place], "choices": [changed_by(case)]}
    assert response.chunks() == expected


def changed_by(case):
    choice = changed(case.shape.chunks[case.place]["choices"][0])
    if case.outcome == "string":
        holder = choice.get("delta", choice)
        holder["content" if "content" in holder else "text"] = MESSAGE
    return choice


def check_end(case, response, reads, chunks):
    """After so many whole chunks the stream was ended in good form."""
    assert response.status == 200
    *before, last = response.chunks()
    assert before[:chunks] == case.shape.chunks[:chunks]
    if reads == "message":
        (said,) = before[chunks:]
        assert case.shape.text(said["choices"][0]) == MESSAGE
        assert last["choices"][0]["finish_reason"] == "content_filter"
        return
    assert before[chunks:] == []
    texts = {"403": ("permission_error", MESSAGE), "500": ("internal_server_error", "Internal server error")}
    assert (last["error"]["type"], last["error"]["message"]) == texts[reads]


def check_message(case, response):
    """The message is said in the endpoint's own way."""
    if not case.shape.has_text:
        assert (response.status, response.error()["message"]) == (400, MESSAGE)
        assert response.error()["code"] == "content_policy_violation"
        return
    assert response.status == 200
    choices = [chunk["choices"][0] for chunk in (response.chunks() if case.stream else [response.json()])]
    assert "".join(map(case.shape.text, choices)) == MESSAGE
    assert choices[-1]["finish_reason"] == "stop"
