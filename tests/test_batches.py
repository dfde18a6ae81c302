"""Files of calls: each line goes through the hooks as the call it is, and a batch passes if its file did."""

from __future__ import annotations

import anyio
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, DualCache, LLMGate
from asgi_llm_gate.batches import REMEMBERED
from tests.harness import Request, Upstream, answer
from tests.multipart import sent_as_form
from tests.test_forms import starlette_reads

pytestmark = pytest.mark.anyio

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
STORED = answer(b'{"id":"file-1","object":"file"}')


def row(number, url=CHAT, **body):
    body = body or {"model": "m", "messages": [{"role": "user", "content": f"Hi {number}"}]}
    return {"custom_id": str(number), "method": "POST", "url": url, "body": body}


def jsonl(*rows):
    return b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in rows)


def upload(content, purpose="batch"):
    return sent_as_form("/v1/files", {"purpose": purpose}, {"file": ("calls.jsonl", content, "application/jsonl")})


async def uploaded(content, *callbacks, app=None, **settings):
    """The answer to an upload, and the file that the app got, or None."""
    app = app or Upstream(STORED)
    response = await upload(content).to(LLMGate(app, callbacks=callbacks, **settings))
    if not app.calls:
        return response, None
    scope, body = app.calls[-1]
    return response, dict(await starlette_reads(scope, body))["file"]


class Looks(CallHooks):
    """Notes every call, and may change or refuse those that say `bad`."""

    def __init__(self, verdict=None):
        self.verdict = verdict
        self.seen = []

    async def async_pre_call_hook(self, data, call_type, user_api_key_dict):
        self.seen.append((call_type, data.get("model"), user_api_key_dict.end_user_id))
        if "bad" in str(data.get("messages")):
            if isinstance(self.verdict, Exception):
                raise self.verdict
            return self.verdict
        if call_type == "completion":
            data["model"] = "other"
        return None


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["no line end", "a line end"])
async def test_a_file_that_no_hook_changes_goes_on_to_the_byte(end):
    content = jsonl(row(1), row(2, EMBED, model="e", input="Hi"), {**row(3), "extra": [1]}) + end
    response, file = await uploaded(content)
    assert (response.status, file.filename, file.content_type) == (200, "calls.jsonl", "application/jsonl")
    assert file.content == content


async def test_each_line_goes_through_the_hooks_as_its_own_call():
    looks = Looks()
    content = jsonl(row(1), b"", row(2, EMBED, model="e", input="Hi", user="u"), row(3))
    _, file = await uploaded(content, looks)
    assert looks.seen == [
        ("files", None, None),
        ("completion", "m", None),
        ("embeddings", "e", "u"),
        ("completion", "m", None),
    ]
    rows = [orjson.loads(line) for line in file.content.splitlines()]
    assert [line["body"]["model"] for line in rows] == ["other", "e", "other"]
    assert [line["custom_id"] for line in rows] == ["1", "2", "3"]


async def test_the_model_in_a_lines_url_is_what_hooks_see_and_change():
    looks = Looks()
    _, file = await uploaded(jsonl(row(1, "/openai/deployments/d/chat/completions")), looks)
    assert looks.seen[1] == ("completion", "d", None)
    assert orjson.loads(file.content)["url"] == "/openai/deployments/other/chat/completions"


BAD = row(2, messages=[{"role": "user", "content": "bad"}])
REFUSALS = {
    "message": ("no", 400, "Line 2: no", "content_policy_violation"),
    "error": (HTTPException(403, "no"), 403, "Line 2: no", "403"),
    "crash": (ValueError(), 500, "Internal server error", "internal_error"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_line_refuses_the_file_and_is_named(name):
    verdict, status, message, code = REFUSALS[name]
    response, file = await uploaded(jsonl(row(1), BAD, row(3)), Looks(verdict))
    error = response.error()
    assert (response.status, error["message"], error["code"], file) == (status, message, code, None)


class Moderates(CallHooks):
    async def async_moderation_hook(self, data):
        if "bad" in str(data.get("messages")):
            raise HTTPException(400, "unsafe")


class Waits(CallHooks):
    def __init__(self):
        self.cancelled = 0

    async def async_moderation_hook(self, data):
        if "bad" in str(data.get("messages")):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                self.cancelled += 1
                raise


async def test_moderation_hooks_judge_each_line_at_once_before_the_file_goes_on():
    waits = Waits()
    response, file = await uploaded(jsonl(row(1), BAD), waits, Moderates())
    assert (response.status, response.error()["message"], file) == (400, "Line 2: unsafe", None)
    assert waits.cancelled == 1
    assert (await uploaded(jsonl(row(1)), waits, Moderates()))[1] is not None


WRONG = {
    "no JSON": (b"{", 400, "invalid_json"),
    "no object": (b"[]", 400, "invalid_json"),
    "another method": ({**row(1), "method": "GET"}, 400, "invalid_batch"),
    "no method": ({"url": CHAT, "body": {}}, 400, "invalid_batch"),
    "no url": ({"method": "POST", "body": {}}, 400, "invalid_batch"),
    "no body": ({"method": "POST", "url": CHAT}, 400, "invalid_batch"),
    "a body that is no object": ({"method": "POST", "url": CHAT, "body": "{}"}, 400, "invalid_batch"),
    "an odd url": (row(1, "/v1//chat/completions"), 400, "invalid_path"),
    "an unknown url": (row(1, "/v1/elsewhere"), 403, "endpoint_not_inspected"),
    "a url that is not looked into": (row(1, "/invocations"), 403, "endpoint_not_inspected"),
    "a url that takes forms": (row(1, "/v1/audio/transcriptions"), 403, "endpoint_not_inspected"),
    "a url that carries calls": (row(1, "/v1/batches"), 403, "endpoint_not_inspected"),
    "a stream of no boolean": (row(1, CHAT, stream="true"), 400, "invalid_type"),
    "too many values": (row(1, CHAT, input=[1] * 200), 400, "json_too_large"),
    "a long line": (row(1, CHAT, input="x" * 2_000), 413, "request_too_large"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_line_that_is_no_call_refuses_the_file(name):
    line, status, code = WRONG[name]
    response, file = await uploaded(jsonl(row(1), line), max_body_bytes=2_000, max_json_values=100)
    assert (response.status, response.error()["code"], file) == (status, code, None)
    assert response.error()["message"].startswith("Line 2: ")


async def test_each_line_must_say_who_its_user_is():
    settings = {"enforce_user_param": True}
    _, file = await uploaded(
        jsonl(row(1, model="m", user="u"), row(2, "/v1/moderations", input="x", user="u")), **settings
    )
    assert [orjson.loads(line)["body"] for line in file.content.splitlines()] == [
        {"model": "m", "user": "u"},
        {"input": "x"},
    ]
    response, file = await uploaded(jsonl(row(1, model="m", user="u"), row(2)), **settings)
    assert (response.status, response.error()["param"], file) == (400, "user", None)
    assert response.error()["message"].startswith("Line 2: ")


async def batch(gate, file_id="file-1", endpoint=CHAT):
    body = orjson.dumps({"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"})
    return await Request(body, "/v1/batches").to(gate)


async def test_a_batch_passes_whose_file_was_looked_into():
    app, cache = Upstream(STORED), DualCache()
    gate = LLMGate(app, cache=cache, callbacks=[Looks()], enforce_user_param=True)
    assert (await upload(jsonl(row(1, model="m", user="u"))).to(gate)).status == 200
    assert (await batch(gate)).status == 200
    assert orjson.loads(app.calls[-1][1])["input_file_id"] == "file-1"
    ttl = cache.get_ttl("asgi_llm_gate:batch_file:file-1")
    assert REMEMBERED - 60 < ttl <= REMEMBERED


@pytest.mark.parametrize(
    ("file_id", "endpoint", "status"), [("file-2", CHAT, 403), (None, CHAT, 403), ("file-1", EMBED, 400)]
)
async def test_a_batch_of_a_file_that_nobody_saw_or_of_other_calls_is_refused(file_id, endpoint, status):
    app = Upstream(STORED)
    gate = LLMGate(app)
    await upload(jsonl(row(1))).to(gate)
    response = await batch(gate, file_id, endpoint)
    assert (response.status, len(app.calls)) == (status, 1)
    assert response.error()["code"] in {"endpoint_not_inspected", "invalid_batch"}


NOT_STORED = {
    "an error": answer(b'{"error":{"message":"no"}}', 400),
    "no id": answer(b"{}"),
    "an id of no text": answer(b'{"id":1}'),
    "no JSON": answer(b"stored", content_type="text/html"),
}


@pytest.mark.parametrize("name", NOT_STORED)
async def test_an_upload_that_was_not_stored_is_not_remembered(name):
    app = Upstream(NOT_STORED[name])
    gate = LLMGate(app)
    assert (await upload(jsonl(row(1))).to(gate)).sent == NOT_STORED[name]
    assert (await batch(gate)).status == 403


@pytest.mark.parametrize("policy", ["pass", "deny"])
async def test_batches_have_a_policy(policy):
    app = Upstream(STORED)
    assert (await batch(LLMGate(app, policies={"batches": policy}))).status == (200 if policy == "pass" else 403)


async def test_a_hook_that_puts_something_else_in_the_place_of_the_file_has_the_upload_refused():
    class Replaces(CallHooks):
        async def async_pre_call_hook(self, data):
            data["file"] = b"{}"

    response, file = await uploaded(jsonl(row(1)), Replaces())
    assert (response.status, response.error()["code"], file) == (403, "endpoint_not_inspected", None)


async def test_a_file_of_another_purpose_is_not_read_as_calls():
    app = Upstream(STORED)
    assert (await upload(b"anything", "assistants").to(LLMGate(app))).status == 200
