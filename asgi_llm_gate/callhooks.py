"""What a callback may define: the hooks' names, arguments and meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime

    from asgi_llm_gate.auth import UserAPIKeyAuth

_EVENT = frozenset({"kwargs", "response_obj", "start_time", "end_time"})
_PRE_API_CALL = frozenset({"model", "messages", "kwargs"})

# Each hook's method and the arguments the gate has for it.
STAGES: Mapping[str, frozenset[str]] = {
    "async_pre_call_hook": frozenset({"user_api_key_dict", "cache", "data", "call_type"}),
    "async_moderation_hook": frozenset({"data", "user_api_key_dict", "call_type"}),
    "async_post_call_success_hook": frozenset({"data", "user_api_key_dict", "response"}),
    "async_post_call_streaming_hook": frozenset({"user_api_key_dict", "response", "data", "request_data"}),
    "async_post_call_streaming_iterator_hook": frozenset({"user_api_key_dict", "response", "request_data"}),
    "async_post_call_failure_hook": frozenset(
        {"request_data", "original_exception", "user_api_key_dict", "traceback_str"}
    ),
    "async_post_call_response_headers_hook": frozenset({"data", "user_api_key_dict", "response", "request_headers"}),
    "async_post_call_ended_hook": frozenset({"data", "user_api_key_dict"}),
    "async_log_pre_api_call": _PRE_API_CALL,
    "async_log_stream_event": _EVENT,
    "async_log_success_event": _EVENT,
    "async_log_failure_event": _EVENT,
    "log_pre_api_call": _PRE_API_CALL,
    "log_stream_event": _EVENT,
    "log_success_event": _EVENT,
    "log_failure_event": _EVENT,
}


class CallHooks:
    """A callback's base class: override the hooks you need.

    Any object with some of these methods will do as well. A hook may be a plain ``def``, and may take only those
    of its arguments that it uses: they are passed by keyword. What is not overridden costs nothing.

    A callback may set ``hook_timeout`` (seconds) and ``on_hook_error`` (``"reject"`` or ``"allow"``), which win over
    the gate's own settings; and ``shared_state = True`` where it counts the limits of callers over all processes, so
    that the command line serves it with several workers only if they share a cache.
    """

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | str | Exception | None:
        """Look at a call before it happens, and change or refuse it.

        Args:
            user_api_key_dict: Who is calling.
            cache: The gate's `DualCache`, shared by all calls.
            data: The decoded request body; the same dict through the whole call.
            call_type: ``completion``, ``text_completion``, ``embeddings``, ``image_generation``, ``moderation``, …

        Returns:
            None to go on with ``data`` as it is now; a dict to go on with that; a string to refuse the call with that
            message; an exception to refuse it as if it had been raised.
        """

    async def async_moderation_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, call_type: Any
    ) -> Any:
        """Judge a call while the model already works; raise, or return a string or an exception, to refuse it.

        Changes to ``data`` come too late for the model, and any other value returned means nothing.
        """

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Look at a whole, successful, unstreamed response before the client sees a byte of it.

        Returns:
            None to go on with ``response`` as it is now, or a new response: a dict or an object with ``model_dump``.
        """

    async def async_post_call_failure_hook(
        self, request_data: dict[str, Any], original_exception: Exception, user_api_key_dict: UserAPIKeyAuth
    ) -> Any:
        """Learn that a call failed or was refused.

        Returns:
            None, or an exception with a ``status_code`` that replaces the error: the first one wins, all hooks run.
        """

    async def async_post_call_streaming_hook(self, user_api_key_dict: UserAPIKeyAuth, response: str) -> str | None:
        """Look at one piece of a streamed text.

        A callback's ``streaming_channels`` say which texts it wants: of ``text`` (the default), ``tool_calls``,
        ``refusal`` and ``reasoning``. Its ``streaming_window`` (characters) holds that much text back, so that what a
        stream cuts in two is seen whole; the hook is then called with all text not yet released, and must be
        idempotent, as masking is. With ``math.inf`` it is called once, when the text is whole.

        The piece also has ``.channel`` and ``.index``, the choice's.

        Returns:
            What takes the piece's place (an empty string drops it), or None to leave it. Raise to end the stream.
        """

    async def async_post_call_streaming_iterator_hook(
        self,
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002  # the hook's signature
        response: AsyncIterator[Any],
        request_data: dict[str, Any],  # noqa: ARG002
    ) -> AsyncIterator[Any]:
        """Take the chunks of a stream one by one, and yield fewer, more or others: objects, or dicts.

        Returning early finishes every choice that is open.
        """
        async for chunk in response:
            yield chunk

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> dict[str, str] | None:
        """Return headers to add to an answer, also to errors, streams and rejections.

        ``response`` is the response, where it is a whole one that hooks have looked at; else None.
        """

    async def async_post_call_ended_hook(self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth) -> None:
        """Give back what was held for a call: nothing is at work for it any more.

        Once for each call that pre-call hooks were asked about, whatever became of it: just before the last of its
        answer goes out; where the client is answered without the app, when the app has been stopped. Not for calls
        that come on a WebSocket or in a file (``data["proxy_server_request"]["via"]``), which have no such end.
        """

    async def async_log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        """Observe a call that goes to the model, off the client's path, as all log events."""

    async def async_log_stream_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a stream that has come to its end; ``response_obj`` is put together from its chunks."""

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a call that succeeded. Each call ends by exactly one of success and failure."""

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a call that failed or was refused; ``kwargs["exception"]`` says why."""

    async def aclose(self) -> None:
        """Close what the callback holds, such as connections; once for each shutdown of the server.

        It comes after the app's own shutdown, when the log hooks have been told of every call, and has the hooks' time
        limit. A server that runs no lifespan never asks.
        """

    def log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        """Observe, in a callback without the asynchronous method; likewise the three below."""

    def log_stream_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a stream that has come to its end."""

    def log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a call that succeeded."""

    def log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Observe a call that failed or was refused."""
