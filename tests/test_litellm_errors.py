"""LiteLLM's exceptions, understood by their names: its own, and the gate's in their place."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection, intended, rejection
from asgi_llm_gate.hooks import overrides
from asgi_llm_gate.litellm_errors import (
    EXCEPTIONS,
    APIError,
    BlockedPiiEntityError,
    GuardrailRaisedException,
    LiteLLMError,
    ModifyResponseException,
    ProxyException,
    RejectedRequestError,
)
from tests.harness import Request, Upstream, chat

RateLimitError: Any = EXCEPTIONS["RateLimitError"]


def named(name: str, base: type[Exception] = Exception, **fields: object) -> Exception:
    """An exception of a class of LiteLLM's own, by name."""
    exc = type(name, (base,), {})("its text")
    vars(exc).update(fields)
    return exc


PREFIXED = "litellm.BadRequestError: litellm.RejectedRequestError: Not for the model"
MESSAGES = {
    "rejected": (RejectedRequestError("No", "m", "openai", {}), "No"),
    "rejected, by keyword": (RejectedRequestError(message="No", model="m", llm_provider="", request_data={}), "No"),
    "modified": (ModifyResponseException("No", model="m", request_data={}, detection_info=None), "No"),
    "LiteLLM's, with its classes' names": (
        named("RejectedRequestError", status_code=400, message=PREFIXED),
        "Not for the model",
    ),
    "LiteLLM's, derived from": (named("Mine", type(named("ModifyResponseException")), message="No"), "No"),
    "without a message": (named("ModifyResponseException"), "its text"),
    "an empty one": (named("ModifyResponseException", message=""), ""),
    "the gate's": (Rejection("No"), "No"),
}


@pytest.mark.parametrize(("exc", "message"), MESSAGES.values(), ids=list(MESSAGES))
def test_a_message_for_the_user_is_read_without_the_names_of_classes(exc, message):
    found = rejection(exc)
    assert found is not None
    assert found.message == message


@pytest.mark.parametrize("exc", [ValueError("No"), GuardrailRaisedException(message="No")], ids=repr)
def test_other_exceptions_are_no_message_for_the_user(exc):
    assert rejection(exc) is None


@pytest.mark.anyio
@pytest.mark.parametrize("stage", ["async_pre_call_hook", "async_moderation_hook", "async_post_call_success_hook"])
@pytest.mark.parametrize("kind", [RejectedRequestError, ModifyResponseException])
async def test_it_is_answered_as_a_normal_answer_at_any_stage(stage, kind):
    def hook(data):
        raise kind("Not for the model")

    callback = type("Raises", (), {stage: staticmethod(hook)})()
    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[callback]))
    assert (response.status, response.json()["choices"][0]["message"]["content"]) == (200, "Not for the model")


WRAPPED = "Guardrail raised an exception, Guardrail: g, Message: No"
STATUSES = {
    "a guardrail": (GuardrailRaisedException("g", "No"), 400, WRAPPED),
    "a guardrail, in its own words": (GuardrailRaisedException("g", "No", False, 403), 403, "No"),
    "a guardrail of an old version": (named("GuardrailRaisedException", message="No"), 400, "No"),
    "personal data": (
        BlockedPiiEntityError("EMAIL", "g"),
        400,
        "Blocked entity detected: EMAIL by Guardrail: g. This entity is not allowed to be used in this request.",
    ),
    "personal data, of an old version": (named("BlockedPiiEntityError", message="No"), 400, "No"),
    "the proxy": (ProxyException("No", "auth_error", "user", 403, {"x-a": "b"}), 403, "No"),
    "the proxy, without a status": (ProxyException("No"), 500, "No"),
    "any status": (APIError(418, "No", "m"), 418, "No"),
    "a prefix": (named("BadRequestError", status_code=400, message="litellm.BadRequestError: No"), 400, "No"),
    "the base": (LiteLLMError("No"), 500, "No"),
    "too many": (RateLimitError("No", llm_provider="openai", model="m"), 429, "No"),
    "a policy": (EXCEPTIONS["ContentPolicyViolationError"]("No", "m", "openai"), 400, "No"),
}


@pytest.mark.parametrize(("exc", "status", "message"), STATUSES.values(), ids=list(STATUSES))
def test_an_exception_of_litellm_has_its_status_and_its_message(exc, status, message):
    error = intended(exc)
    assert error is not None
    assert (error.status_code, error.message) == (status, message)


def test_the_proxys_exception_keeps_what_it_says_beside():
    error = intended(ProxyException("No", type="auth_error", param="user", code="401", headers={"x-a": "b"}))
    assert error is not None
    assert (error.type, error.param, error.code, error.headers) == ("auth_error", "user", "401", {"x-a": "b"})


def test_what_is_caught_as_its_base_class_is_so_here():
    assert issubclass(EXCEPTIONS["ContentPolicyViolationError"], EXCEPTIONS["BadRequestError"])
    assert issubclass(EXCEPTIONS["RejectedRequestError"], EXCEPTIONS["BadRequestError"])
    assert {kind.__name__ for kind in EXCEPTIONS.values()} == set(EXCEPTIONS)


def test_the_hooks_of_litellms_own_base_classes_do_nothing_and_do_not_count():
    async def async_pre_call_hook(self, secret): ...

    async_pre_call_hook.__module__ = "litellm.integrations.custom_logger"
    base = type("CustomLogger", (), {"async_pre_call_hook": async_pre_call_hook})
    assert not overrides(base(), "async_pre_call_hook")

    class Handler(base):  # type: ignore[misc, valid-type]
        async def async_moderation_hook(self): ...

    assert not overrides(Handler(), "async_pre_call_hook")
    assert overrides(Handler(), "async_moderation_hook")
    assert not overrides(CallHooks(), "async_moderation_hook")
