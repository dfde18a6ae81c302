"""`strict`: no start where a hook would not see what it guards, and no call under an API's prefix that is not known."""

from __future__ import annotations

import pytest

from asgi_llm_gate import LLMGate
from asgi_llm_gate.config import ConfigError
from asgi_llm_gate.coverage import report
from tests.harness import Request, Upstream, chat


class Guard:
    def async_pre_call_hook(self):
        """Look on."""


class Moderator:
    def async_moderation_hook(self):
        """Look on."""


class Answers:
    def async_post_call_success_hook(self):
        """Look on."""


class Failures:
    def async_post_call_failure_hook(self):
        """Look on."""


class AnswersAndPieces(Answers):
    def async_post_call_streaming_hook(self):
        """Look on."""


class AnswersAndChunks(Answers):
    def async_post_call_streaming_iterator_hook(self):
        """Look on."""


GAPS = {
    "a policy": ([Guard()], "strict: batches calls pass without a look by Guard"),
    "a policy past moderation": ([Moderator()], "strict: batches calls pass without a look by Moderator"),
    "streams": ([Answers()], "strict: Answers looks into answers but not into streams: it has neither "),
}


@pytest.mark.parametrize("name", GAPS)
def test_a_gate_does_not_start_with_a_gap(name):
    callbacks, message = GAPS[name]
    with pytest.raises(ConfigError) as caught:
        LLMGate(Upstream(), callbacks=callbacks, policies={"batches": "pass"}, strict=True)
    assert str(caught.value).startswith(message)
    LLMGate(Upstream(), callbacks=callbacks, policies={"batches": "pass"})


@pytest.mark.parametrize(
    "callback", [Failures(), AnswersAndPieces(), AnswersAndChunks()], ids=lambda c: type(c).__name__
)
def test_a_gate_starts_where_nothing_is_guarded_or_all_is_seen(callback):
    LLMGate(Upstream(), callbacks=[callback], policies={"batches": "pass"}, strict=True)
    LLMGate(Upstream(), callbacks=[callback, Guard()], strict=True)


UNKNOWN = ["/v1/fine_tuning/jobs", "/api/v1/unheard-of", "/openai/x", "/x/v2/y", "/v1beta/models/m"]


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", UNKNOWN)
async def test_an_unknown_call_under_an_apis_prefix_is_refused(path, method):
    app = Upstream()
    response = await Request(chat(), path, method).to(LLMGate(app, strict=True))
    assert (response.status, response.error()["code"], app.calls) == (403, "unknown_endpoint", [])
    assert (await Request(chat(), path, method).to(LLMGate(app))).status == 200


KNOWN = [
    ("GET", "/v1/models"),
    ("DELETE", "/v1/files/f"),
    ("POST", "/login"),
    ("POST", "/v1/orders"),
    ("POST", "/vault"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path"), [*KNOWN, ("POST", "/v1/chat/completions")])
async def test_what_is_known_or_no_api_call_passes(method, path):
    app = Upstream()
    gate = LLMGate(app, strict=True, paths={"/v1/orders": "pass"})
    assert (await Request(chat(), path, method).to(gate)).status == 200
    assert len(app.calls) == 1


def test_the_report_says_that_unknown_calls_are_refused():
    assert "under an API's prefix is refused" in report(LLMGate(Upstream(), strict=True).settings)
