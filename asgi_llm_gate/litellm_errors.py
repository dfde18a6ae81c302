"""LiteLLM's exceptions, for handler files where it is not installed; the gate knows them by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class LiteLLMError(Exception):
    """What LiteLLM's exceptions have in common: a status, and a message first among the arguments."""

    status_code: int = 500

    def __init__(self, message: str = "", model: Any = None, llm_provider: Any = None, *_: Any, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.llm_provider = llm_provider
        vars(self).update(fields)


class BadRequestError(LiteLLMError):
    """A request that can't be served."""

    status_code = 400


class RejectedRequestError(BadRequestError):
    """A request that is answered with a message in the model's place."""


class APIError(LiteLLMError):
    """An error of any status."""

    def __init__(self, status_code: int = 500, message: str = "", *arguments: Any, **fields: Any) -> None:
        super().__init__(message, *arguments, **fields)
        self.status_code = status_code


class GuardrailRaisedException(Exception):
    """A guardrail's refusal."""

    def __init__(
        self,
        guardrail_name: str | None = None,
        message: str = "",
        should_wrap_with_default_message: bool = True,
        status_code: int = 400,
        **fields: Any,
    ) -> None:
        wrapped = f"Guardrail raised an exception, Guardrail: {guardrail_name}, Message: {message}"
        self.message = wrapped if should_wrap_with_default_message else message
        super().__init__(self.message)
        self.guardrail_name = guardrail_name
        self.status_code = status_code
        vars(self).update(fields)


class BlockedPiiEntityError(Exception):
    """A guardrail's refusal of personal data."""

    def __init__(self, entity_type: str, guardrail_name: str | None = None, status_code: int = 400) -> None:
        self.message = (
            f"Blocked entity detected: {entity_type} by Guardrail: {guardrail_name}. "
            "This entity is not allowed to be used in this request."
        )
        super().__init__(self.message)
        self.entity_type = entity_type
        self.guardrail_name = guardrail_name
        self.status_code = status_code


class ModifyResponseException(Exception):
    """A message in place of the model's answer."""

    def __init__(
        self,
        message: str,
        model: str | None = None,
        request_data: dict[str, Any] | None = None,
        guardrail_name: str | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.model = model
        self.request_data = request_data
        self.guardrail_name = guardrail_name
        vars(self).update(fields)


class ProxyException(Exception):
    """An error in the proxy's envelope; its `code` is the status."""

    def __init__(
        self,
        message: str,
        type: str | None = None,
        param: str | None = None,
        code: int | str | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.param = param
        self.code = str(code)
        self.headers = headers or {}
        vars(self).update(fields)


def _of_status(name: str, status: int, base: type[LiteLLMError] = LiteLLMError) -> type[LiteLLMError]:
    return type(name, (base,), {"status_code": status, "__module__": __name__})


_OTHERS = {
    "AuthenticationError": 401,
    "BudgetExceededError": 400,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "Timeout": 408,
    "UnprocessableEntityError": 422,
    "RateLimitError": 429,
    "APIConnectionError": 500,
    "InternalServerError": 500,
    "ServiceUnavailableError": 503,
}
_OWN = (
    *(BadRequestError, RejectedRequestError, APIError),
    *(GuardrailRaisedException, BlockedPiiEntityError, ModifyResponseException),
)

# What ``litellm.exceptions`` offers.
EXCEPTIONS: Mapping[str, type[Exception]] = {
    **{kind.__name__: kind for kind in _OWN},
    **{name: _of_status(name, status) for name, status in _OTHERS.items()},
    **{
        name: _of_status(name, 400, BadRequestError)
        for name in ("ContentPolicyViolationError", "ContextWindowExceededError")
    },
}
