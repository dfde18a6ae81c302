"""`asgi-llm-gate try`: what each hook changed, what the app gets, what the client gets."""

from __future__ import annotations

import re

import anyio
import anyio.lowlevel
import orjson
import pytest
from fastapi import HTTPException

from asgi_llm_gate import CallHooks, trial
from asgi_llm_gate.config import load_settings
from asgi_llm_gate.trial.changes import changes, snapshot
from tests.commandline import run as command

CHAT = {"model": "m", "messages": [{"role": "user", "content": "a wide b"}]}


async def tried(callback, body=CHAT, **settings):
    """Return the report of a request through one callback, without what differs from time to time."""
    loaded = load_settings({}, {"callbacks": [callback], **settings}, {})
    request = trial.read_request(orjson.dumps(body))
    text = trial.report(await trial.run(loaded, request), loaded)
    text = re.sub(r"\d+\.\d\d ms", "N ms", text)
    return re.sub(r'"(id|created)": ?[^,]+', r'"\1": 0', text)


def part(text, title):
    """Return the lines below a title, down to the next empty one."""
    lines = iter(text.split("\n"))
    assert any(line.startswith(title) for line in lines), text
    return list(iter(lambda: next(lines, ""), ""))


def notes(text, hook):
    return [line.removeprefix("  ") for line in part(text, f"Handler.{hook}  N ms")]


class Handler(CallHooks):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        data["model"] = "other"
        data["messages"].insert(0, {"role": "system", "content": "be brief"})
        data["metadata"]["team"] = "blue"
        return data

    def async_moderation_hook(self, data):
        data["model"] = "too late"

    async def async_post_call_success_hook(self, data, response):
        response.choices[0].message.content += "!"

    async def async_post_call_streaming_hook(self, response):
        return response.upper()

    async def async_post_call_streaming_iterator_hook(self, response, request_data):
        async for chunk in response:
            if chunk.choices[0].delta.content != " wide":
                yield chunk

    async def async_post_call_failure_hook(self, original_exception):
        """Look on."""

    async def async_post_call_response_headers_hook(self, data):
        return {"x-model": data["model"]}

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        """Look on."""


class Idle:
    async def async_pre_call_hook(self, data):
        """Look on."""


@pytest.mark.anyio
async def test_a_whole_answer_is_shown_with_what_each_hook_changed():
    """The hooks stand in the order in which they began, around what the app gets."""
    text = await tried(Handler())
    titles = [line.partition("  ")[0] for line in text.split("\n") if re.match("Handler|THE", line)]
    assert titles == [
        "Handler.async_pre_call_hook",
        "THE APP GETS POST /v1/chat/completions",
        "Handler.async_moderation_hook",
        "Handler.async_post_call_success_hook",
        "Handler.async_post_call_response_headers_hook",
        "Handler.async_log_success_event",
        "THE APP SAYS 200",
        "THE CLIENT GETS 200",
    ]
    assert text.startswith("POST /v1/chat/completions: completion\n")
    assert notes(text, "async_pre_call_hook") == [
        '- model: "m"',
        '+ model: "other"',
        '+ messages[0]: {"role":"system","content":"be brief"}',
        '+ metadata.team: "blue"',
    ]
    assert orjson.loads("".join(part(text, "THE APP GETS"))) == {
        "model": "other",
        "messages": [{"role": "system", "content": "be brief"}, *CHAT["messages"]],
    }
    assert notes(text, "async_moderation_hook") == ["no change"]
    assert notes(text, "async_post_call_success_hook") == [
        '- choices[0].message.content: "a wide b"',
        '+ choices[0].message.content: "a wide b!"',
    ]
    assert notes(text, "async_post_call_response_headers_hook") == ['+ x-model: "too late"']
    answer = part(text, "THE CLIENT GETS 200")
    assert "x-model: too late" in answer
    assert orjson.loads("".join(answer[3:]))["choices"][0]["message"]["content"] == "a wide b!"


@pytest.mark.anyio
async def test_a_stream_is_shown_piece_by_piece():
    """Text hooks by the pieces, iterator hooks by the chunks they left out, both streams as they are."""
    text = await tried(Handler(), {**CHAT, "stream": True})
    (dropped,) = notes(text, "async_post_call_streaming_iterator_hook")
    assert dropped.startswith("- chunks[2]: {")
    assert '"delta":{"content":" wide"}' in dropped
    assert "Handler.async_post_call_streaming_hook  N ms, 2 calls\n" in text
    assert notes(text, "async_post_call_streaming_hook") == ['"a" -> "A"', '" b" -> " B"']
    said, got = (text.split(title)[1] for title in ("THE APP SAYS 200", "THE CLIENT GETS 200"))
    assert re.findall(r'"content":"(.*?)"', said.split("THE CLIENT")[0]) == ["", "a", " wide", " b"]
    assert re.findall(r'"content":"(.*?)"', got) == ["", "A", " B"]
    assert got.endswith("data: [DONE]")


@pytest.mark.anyio
async def test_a_call_that_no_hook_changes_is_short():
    """The app's answer is not told twice."""

    text = await tried(Idle())
    assert "Idle.async_pre_call_hook  N ms\n  no change\n" in text
    assert "THE APP SAYS" not in text


@pytest.mark.anyio
@pytest.mark.parametrize("way", [lambda: "no", lambda: ValueError("no"), lambda: HTTPException(418, {"error": "no"})])
async def test_a_refusal_is_shown_as_the_client_gets_it(way):
    """What the hook returned, who was told of it, and the answer; the app gets nothing."""

    class Handler:
        def async_pre_call_hook(self, data):
            return way()

        async def async_post_call_failure_hook(self, original_exception):
            return HTTPException(503, "later") if isinstance(way(), ValueError) else None

        def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
            """Look on."""

    text = await tried(Handler())
    shown, told, status = {
        str: ('refused with "no"', ["was told of Rejection: no"], "200"),
        ValueError: (
            "returned ValueError: no",
            ["was told of HookFailedError 500: …", "returned HTTPException 503: later"],
            "503",
        ),
        HTTPException: ('returned HTTPException 418: {"error":"no"}', ["was told of HTTPException 418: …"], "418"),
    }[type(way())]
    assert notes(text, "async_pre_call_hook") == [shown]
    found = notes(text, "async_post_call_failure_hook")
    assert [re.sub(r"(\d: ).*", r"\1…", line) if line.startswith("was told") else line for line in found] == told
    assert part(text, f"THE CLIENT GETS {status}")
    assert "THE APP" not in text


@pytest.mark.anyio
async def test_a_hook_that_fails_is_shown_with_what_it_raised():
    class Handler:
        async def async_pre_call_hook(self, data):
            data["model"] = "x"
            raise KeyError("none")

    text = await tried(Handler())
    assert notes(text, "async_pre_call_hook") == ["raised KeyError: 'none'"]
    assert part(text, "THE CLIENT GETS 500")
    text = await tried(Handler(), on_hook_error="allow")
    assert part(text, "THE CLIENT GETS 200")


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_hook_that_takes_too_long_is_shown_as_stopped():
    class Handler:
        hook_timeout = 0.01

        async def async_pre_call_hook(self, data):
            await (anyio.sleep_forever() if data["model"] == "slow" else anyio.lowlevel.checkpoint())

        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)
            await anyio.sleep_forever()

    text = await tried(Handler(), {**CHAT, "model": "slow"})
    assert notes(text, "async_pre_call_hook") == ["was stopped"]
    text = await tried(Handler(), {**CHAT, "stream": True})
    assert notes(text, "async_post_call_streaming_iterator_hook") == ["was stopped"]


@pytest.mark.anyio
async def test_other_data_is_compared_with_what_it_replaces():
    """What the gate puts beside it stays, and is not shown as gone."""

    class Handler:
        async def async_pre_call_hook(self, data):
            return {"model": "other", "messages": data["messages"], "user": "me"}

    text = await tried(Handler(), {**CHAT, "n": 1})
    assert notes(text, "async_pre_call_hook") == ['- model: "m"', '+ model: "other"', "- n: 1", '+ user: "me"']


@pytest.mark.anyio
async def test_data_that_is_not_seen_is_not_compared():
    class Handler:
        def async_pre_call_hook(self, call_type):
            """Look on."""

    assert notes(await tried(Handler()), "async_pre_call_hook") == ["no change"]


@pytest.mark.anyio
async def test_what_has_no_end_is_told():
    class Handler:
        def async_pre_call_hook(self, data):
            data["self"] = data

    text = await tried(Handler())
    assert notes(text, "async_pre_call_hook") == ["left what is not JSON"]
    assert part(text, "THE CLIENT GETS 500")


@pytest.mark.anyio
async def test_a_message_that_no_json_holds_is_shown():
    """Half of a surrogate pair is refused with as it would be."""

    class Handler:
        def async_pre_call_hook(self, data):
            return "a\ud800"

    text = await tried(Handler())
    assert notes(text, "async_pre_call_hook") == [r"refused with 'a\ud800'"]
    assert part(text, "THE CLIENT GETS 200")


@pytest.mark.anyio
async def test_another_answer_is_compared_with_what_it_replaces():
    class Handler:
        def async_post_call_success_hook(self, response):
            return {**response, "model": "mine"}

    assert notes(await tried(Handler()), "async_post_call_success_hook") == ['- model: "m"', '+ model: "mine"']

    class Refuser:
        def async_post_call_success_hook(self, response):
            return HTTPException(418, "no")

        def async_post_call_response_headers_hook(self):
            """Add none."""

        def async_post_call_failure_hook(self):
            """Look on."""

    text = await tried(Refuser())
    assert "Refuser.async_post_call_success_hook  N ms\n  returned HTTPException 418: no\n" in text
    assert part(text, "THE CLIENT GETS 418")


@pytest.mark.anyio
async def test_pieces_of_other_channels_are_named_and_refusals_of_a_stream_shown():
    class Handler:
        def async_post_call_streaming_hook(self, response):
            return HTTPException(400, "no") if response == " b" else None

    text = await tried(Handler(), {**CHAT, "stream": True})
    assert notes(text, "async_post_call_streaming_hook") == [
        '"a" -> null',
        '" wide" -> null',
        '" b" -> returned HTTPException 400: no',
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("awaited", [False, True])
async def test_an_iterator_hook_may_be_any_iterator_and_may_fail(awaited):
    """One that is awaited first, one without an end of its own, one that takes no stream."""

    class Chunks:
        def __init__(self):
            self.left = [{"choices": [{"index": 0, "delta": {"content": "x"}}]}]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise HTTPException(400, "no more")
            return self.left.pop()

    class Handler:
        def async_post_call_streaming_iterator_hook(self, request_data):
            return chunks() if awaited else Chunks()

    async def chunks():
        return Chunks()

    text = await tried(Handler(), {**CHAT, "stream": True})
    assert notes(text, "async_post_call_streaming_iterator_hook") == [
        '+ chunks[0]: {"choices":[{"index":0,"delta":{"content":"x"}}]}',
        "raised HTTPException 400: no more",
    ]


@pytest.mark.anyio
async def test_of_a_long_stream_the_first_pieces_are_shown():
    class Handler:
        async def async_post_call_streaming_hook(self, response):
            return response

        async def async_post_call_streaming_iterator_hook(self, response):
            async for chunk in response:
                chunk.model = "x"
                yield chunk
            await response.aclose()

    content = " ".join(["word"] * 300)
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": True}
    text = await tried(Handler(), body)
    assert "300 calls" in text
    assert len(notes(text, "async_post_call_streaming_hook")) == 201
    assert notes(text, "async_post_call_streaming_iterator_hook")[-1] == "…"


KINDS = [
    ({"path": "/login", "body": {"a": 1}}, "POST /login: no LLM call, no hook sees it", "404"),
    ({"path": "/v1/models"}, "GET /v1/models: no LLM call, no hook sees it", "200"),
    ({"path": "/v1/invocations", "body": {}}, "POST /v1/invocations: invocations, no hook sees it", "403"),
    ({"path": "/v1//chat/completions", "body": {}}, "POST /v1//chat/completions: The path is not in", "400"),
    ({"path": "/v1/responses?a=b", "body": {"model": "m", "input": "a"}}, "POST /v1/responses?a=b: responses", "200"),
    ({"path": "/chat/completions", "body": "{"}, "POST /chat/completions: completion", "400"),
    ({"path": "/chat/completions", "method": "put", "body": CHAT}, "PUT /chat/completions: completion", "405"),
    ({"path": "/v1/messages", "body": CHAT}, "POST /v1/messages: anthropic_messages", "200"),
    ({**CHAT, "user": 5}, "POST /v1/chat/completions: completion", "200"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("request_", "line", "status"), KINDS)
async def test_any_request_can_be_tried(request_, line, status):
    text = await tried(Idle(), request_)
    assert text.startswith(line)
    assert f"\nTHE CLIENT GETS {status}\n" in text


@pytest.mark.anyio
async def test_a_request_brings_its_headers():
    """A key is checked as it would be, and none of the headers is the gate's own invention but those that must be."""
    request = {"path": "/chat/completions", "body": CHAT}
    text = await tried(Handler(), request, master_key="sk-1")
    assert part(text, "THE CLIENT GETS 401")
    text = await tried(Handler(), {**request, "headers": {"Authorization": "Bearer sk-1"}}, master_key="sk-1")
    assert part(text, "THE CLIENT GETS 200")


@pytest.mark.anyio
async def test_what_would_move_a_cursor_is_spelt_out():
    text = await tried(Handler(), {"path": "/login", "body": "\x1b[2J"})
    assert "\\x1b[2J" in part(text, "THE APP GETS POST /login")


WRONG = {
    "nothing": (b"", "no valid JSON: "),
    "no JSON": (b"{", "no valid JSON: "),
    "a list": (b"[]", "expected an object, got list"),
    "no chat": (b'{"input": "a"}', "no path, and no body of a chat: give both, "),
    "a body that is no chat": (b'{"body": []}', "no path, and no body of a chat: give both, "),
    "another field": (b'{"path": "/a", "bodi": {}}', "bodi: a request has path, body, headers, method"),
    "a field with a line break": (b'{"path": "/a", "a\\nb": {}}', "a\\nb: a request has "),
    "a number for a path": (b'{"path": 5}', "path: expected one as it stands in a URL, such as /v1/chat/completions"),
    "a path without a slash": (b'{"path": "v1"}', "path: expected one as it stands in a URL"),
    "a path with a letter of another alphabet": ('{"path": "/ü"}'.encode(), "path: expected one as it"),
    "a path with a line break": (b'{"path": "/\\n"}', "path: expected one as it stands in a URL"),
    "a method that is none": (b'{"path": "/a", "method": "P T"}', "method: expected a word such as POST, got 'P T'"),
    "a number for a method": (b'{"path": "/a", "method": 5}', "method: expected a word such as POST, got 5"),
    "headers as a list": (b'{"path": "/a", "headers": []}', "headers: expected values by name, got list"),
    "a number for a header": (b'{"path": "/a", "headers": {"a": 5}}', "headers: a is no header of this value"),
    "a header with a line break": (b'{"path": "/a", "headers": {"a": "\\n"}}', "headers: a is no header of this"),
    "a deep body": (
        b'{"path": "/a", "body": ' + b"[" * 500 + b"]" * 500 + b"}",
        "body: nested too deep; give it as a text to send it as it is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_request_is_one_line(name):
    content, line = WRONG[name]
    with pytest.raises(trial.RequestError) as caught:
        trial.read_request(content)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, ["- a: 1", "+ a: true"]),
        ({"a": 1, "b": 2}, {"b": 2, "c": None}, ["- a: 1", "+ c: null"]),
        ({"a": {"b": [1, 2, 3]}}, {"a": {"b": [1, 3]}}, ["- a.b[1]: 2"]),
        ({"a": [1, 2]}, {"a": [0, 1, 2, 3]}, ["+ a[0]: 0", "+ a[3]: 3"]),
        ({"a": [{"b": 1}, 5]}, {"a": [{"b": 2}, 5]}, ["- a[0].b: 1", "+ a[0].b: 2"]),
        ({"a": []}, {"a": {}}, ["- a: []", "+ a: {}"]),
        ({"a": "x" * 400}, {}, [f'- a: "{"x" * 149} … 102 characters … {"x" * 149}"']),
        ({"a": [0] * 501}, {"a": [1] + [0] * 500}, ["- a[0]: 0", "+ a[0]: 1"]),
        ({"a": [0] * 501}, {"a": [0] * 500}, ["- a[500]: 0"]),
    ],
)
def test_changes_are_told_by_their_place(before, after, lines):
    assert list(changes(before, after)) == lines


def test_a_snapshot_is_a_copy_in_jsons_own_types():
    value = {"a": [1], 2: {3}}
    copy = snapshot(value)
    value["a"].append(2)
    assert copy == {"a": [1], "2": "{3}"}


HANDLER = """
class Handler:
    async def async_pre_call_hook(self, data):
        return "no" if data["model"] == "bad" else None

handler = Handler()
"""


def test_the_command_tries_a_file_or_its_standard_input(tmp_path):
    """The exit status is 0, for a refusal too, and 2 for a mistake, which is one line on standard error."""
    (tmp_path / "tried_hooks.py").write_text(HANDLER)
    config, request = tmp_path / "config.yaml", tmp_path / "request.json"
    config.write_text("environment_variables: {H: tried_hooks.handler}\nlitellm_settings: {callbacks: os.environ/H}")
    request.write_bytes(orjson.dumps({**CHAT, "model": "bad"}))
    done = command("try", config, request)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r'Handler\.async_pre_call_hook  [\d.]+ ms\n  refused with "no"\n', done.stdout)
    done = command("try", config, "-", stdin=orjson.dumps(CHAT).decode())
    assert (done.returncode, done.stderr) == (0, "")
    assert "no change" in done.stdout
    for arguments, told in (
        ((config, tmp_path / "none.json"), "none.json: No such file or directory"),
        ((config, tmp_path), "Is a directory"),
        ((tmp_path / "none.yaml", request), "none.yaml: No such file or directory"),
        ((config, config), "config.yaml: no valid JSON"),
    ):
        done = command("try", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
