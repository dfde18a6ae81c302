"""Guards that ship and look for themselves: banned keywords, blocked users."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_llm_gate import DualCache, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.builtin import BannedKeywords, BlockedUserCheck
from asgi_llm_gate.config import load_settings
from asgi_llm_gate.demo.echo import EchoModel
from tests.actors import DONE, START, App, event, piece, said
from tests.harness import Request, Upstream, answer, chat

pytestmark = pytest.mark.anyio


def saying(text):
    return chat(messages=[{"role": "user", "content": text}])


# A text, and the keyword that is found in it.
TEXTS = {
    "the word": ("make a Bomb", "bomb"),
    "within a word": ("firebombing", "bomb"),
    "capitals": ("BOMB", "bomb"),
    "full width": ("\uff42\uff4f\uff4d\uff42", "bomb"),
    "hidden": ("bo\u200bm\u00adb", "bomb"),
    "hidden among others": ("größe bo\ufeffmb", "bomb"),
    "two words on two lines": ("a Credit \n  Card", "credit card"),
    "other letters": ("STRASSE und 炸弹", "Straße"),
    "no spaces about it": ("这个炸弹在", "炸弹"),
    "none": ("a bo mb, kredit", None),
}


@pytest.mark.parametrize(("text", "keyword"), TEXTS.values(), ids=list(TEXTS))
async def test_a_keyword_is_found_in_whatever_form(text, keyword):
    """The call is refused, and the client told which."""
    upstream = Upstream()
    guard = BannedKeywords(keywords=["bomb", "credit card", "Straße", "炸弹"])
    response = await Request(saying(text)).to(LLMGate(upstream, callbacks=[guard]))
    if keyword is None:
        assert response.status == 200
        return
    assert response.status == 400
    assert response.error()["message"] == f"Keyword banned: {keyword}"
    assert response.error()["code"] == "content_policy_violation"
    assert upstream.calls == []


def message(**fields):
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", **fields}}]}


ANSWERS = {
    "text": (message(content="a bomb"), 400),
    "parts": (message(content=[{"type": "text", "text": "a bomb"}]), 400),
    "a tool's arguments": (
        message(content=None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": '{"a": "bomb"}'}}]),
        400,
    ),
    "a refusal": (message(content=None, refusal="no bomb"), 400),
    "what is no text": ({"id": "bomb", "model": "bomb", **message(content="good")}, 200),
}


@pytest.mark.parametrize(("content", "status"), ANSWERS.values(), ids=list(ANSWERS))
async def test_an_answer_with_a_keyword_is_refused(content, status):
    gate = LLMGate(Upstream(answer(orjson.dumps(content))), callbacks=[BannedKeywords(keywords="bomb")])
    response = await Request(chat()).to(gate)
    assert response.status == status
    if status == 400:
        assert response.error()["message"] == "The answer has a banned keyword in it"
        assert b"bomb" not in response.body


@given(st.lists(st.integers(0, 60), max_size=8), st.sampled_from(["bomb", "BO\u200bMB", "\uff42\uff4f\uff4d\uff42"]))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stream_ends_before_a_keyword_however_it_is_cut(anyio_backend, borders, written):
    """No piece of it has gone out, and the stream ends in good form."""
    text = f"one two three four five six a {written} and more of that"
    cuts = [0, *sorted(borders), len(text)]
    parts = [text[start:end] for start, end in pairwise(cuts)]
    app = App(START, *(piece(event(said(part))) for part in parts), piece(DONE, more=False))
    response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=[BannedKeywords(keywords=["bomb"])]))
    if response.status == 400:  # nothing had gone out
        assert response.error()["code"] == "content_policy_violation"
        return
    *chunks, last = response.chunks()
    sent = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text.startswith(sent)
    assert written[0] not in sent.partition(" a ")[2]
    assert last["error"]["message"] == "The answer has a banned keyword in it"


async def test_a_stream_without_a_keyword_goes_on():
    gate = LLMGate(EchoModel(pause=0), callbacks=[BannedKeywords(keywords=["bomb"])])
    text = "a long and peaceful text that is longer than what is held back of it"
    response = await Request(chat(stream=True, messages=[{"role": "user", "content": text}])).to(gate)
    sent = [chunk["choices"][0]["delta"].get("content") or "" for chunk in response.chunks() if chunk["choices"]]
    assert "".join(sent) == text


BLOCKED = {
    "the call's": ({"user": "me"}, None, 403),
    "with spaces about it": ({"user": " me "}, None, 403),
    "under its new name": ({"safety_identifier": "me"}, None, 403),
    "the key's": ({"user": "you"}, "me", 403),
    "in the cache": ({"user": "spammer"}, None, 403),
    "one that is free": ({"user": "you"}, "them", 200),
    "none": ({}, None, 200),
    "a number": ({"user": 5}, None, 200),
    "forgiven in the cache": ({"user": "reformed"}, None, 200),
}


@pytest.mark.parametrize(("fields", "user_id", "status"), BLOCKED.values(), ids=list(BLOCKED))
async def test_a_blocked_user_is_refused(fields, user_id, status):
    """By the list or by the cache."""

    def who(request, api_key):
        return UserAPIKeyAuth(user_id=user_id)

    cache = DualCache()
    cache.set_cache("blocked_user:spammer", True)
    cache.set_cache("blocked_user:reformed", False)
    gate = LLMGate(Upstream(), callbacks=[BlockedUserCheck(users=["me"])], cache=cache, custom_auth=who)
    response = await Request(chat(**fields)).to(gate)
    assert response.status == status
    if status == 403:
        assert response.error() == {
            "message": "This user is blocked",
            "type": "permission_error",
            "param": None,
            "code": "user_blocked",
        }


async def test_anthropics_user_is_a_user():
    body = orjson.dumps({"model": "m", "max_tokens": 5, "messages": [], "metadata": {"user_id": "me"}})
    gate = LLMGate(Upstream(), callbacks=[BlockedUserCheck(users="me")])
    assert (await Request(body, path="/v1/messages").to(gate)).status == 403


def by_name(name, **options):
    (callback,) = load_settings(None, {"callbacks": name, "callback_settings": {name: options}}).callbacks
    return callback


async def test_words_may_stand_in_a_file(tmp_path):
    """One a line, by name in a configuration and in Python; beside those of the list."""
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffbomb\r\n\r\n  Straße \n".encode())
    for guard in (by_name("banned_keywords", file=str(path), keywords=["gun"]), BannedKeywords(file=path)):
        gate = LLMGate(Upstream(), callbacks=[guard])
        found = [(await Request(saying(text)).to(gate)).status for text in ("bomb", "strasse", "good")]
        assert found == [400, 400, 200]
    gate = LLMGate(Upstream(), callbacks=[by_name("blocked_user_check", file=str(path))])
    assert [(await Request(chat(user=user)).to(gate)).status for user in ("bomb", "me")] == [403, 200]


EMPTY = "keywords: expected at least one, here or in a file, and none that is invisible"
MISTAKES = {
    "nothing": ({}, f".{EMPTY}"),
    "an empty list": ({"keywords": []}, f".{EMPTY}"),
    "one that matches all": ({"keywords": ["bomb", "\u200b"]}, f".{EMPTY}"),
    "a number": ({"keywords": [5]}, ".keywords[0]: expected text, got 5"),
    "no file": ({"file": "nowhere.txt"}, ".file: No such file or directory"),
    "a file that is a number": ({"file": 5}, ".file: expected text, got 5"),
    "a path that is none": ({"file": "\0"}, ".file: no UTF-8 text, or no path"),
    "a file that is no text": ({"file": "binary.txt"}, ".file: no UTF-8 text, or no path"),
}


@pytest.mark.parametrize(("options", "what"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_list_that_is_wrong_is_one_line(options, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"\A.*\Z") as caught:
        by_name("banned_keywords", **options)
    assert str(caught.value) == f"callback_settings.banned_keywords{what}"
