"""What all calls of one gate have in common, resolved once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from asgi_llm_gate.authentication import Authenticator
from asgi_llm_gate.cache import DualCache
from asgi_llm_gate.endpoints import Routes
from asgi_llm_gate.hooks import Hook, chain, overrides
from asgi_llm_gate.pending import Pending
from asgi_llm_gate.stream import TextHook

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.settings import Settings


@dataclass(frozen=True, slots=True)
class LogHooks:
    """The hooks of the log events; a callback's synchronous method only counts where it has no asynchronous one."""

    pre_api_call: tuple[Hook, ...] = ()
    stream_event: tuple[Hook, ...] = ()
    success_event: tuple[Hook, ...] = ()
    failure_event: tuple[Hook, ...] = ()

    def __bool__(self) -> bool:
        """Any of them is there."""
        return bool(self.pre_api_call or self.stream_event or self.success_event or self.failure_event)


@dataclass(frozen=True, eq=False)
class Plan:
    """The app, the settings, who may call, and the chain of each stage."""

    app: ASGIApp
    settings: Settings
    cache: DualCache
    authenticator: Authenticator
    pre_call: tuple[Hook, ...]
    moderation: tuple[Hook, ...]
    success: tuple[Hook, ...]
    text: tuple[TextHook, ...]
    iterator: tuple[Hook, ...]
    failure: tuple[Hook, ...]
    headers: tuple[Hook, ...]
    ended: tuple[Hook, ...]
    log: LogHooks
    # The calls that a line of a batch's file may make.
    batched: Routes = field(default_factory=Routes)
    # Events on their way to the log hooks, of all calls.
    pending: Pending = field(default_factory=Pending)

    @classmethod
    def of(cls, app: ASGIApp, settings: Settings) -> Self:
        """Resolve the hooks of each stage."""

        def stage(method: str) -> tuple[Hook, ...]:
            return chain(settings.callbacks, method, timeout=settings.hook_timeout, on_error=settings.on_hook_error)

        return cls(
            app,
            settings,
            settings.cache or DualCache(),
            Authenticator(settings),
            pre_call=stage("async_pre_call_hook"),
            moderation=stage("async_moderation_hook"),
            success=stage("async_post_call_success_hook"),
            text=tuple(TextHook(hook, settings.streaming_window) for hook in stage("async_post_call_streaming_hook")),
            iterator=stage("async_post_call_streaming_iterator_hook"),
            failure=stage("async_post_call_failure_hook"),
            headers=stage("async_post_call_response_headers_hook"),
            ended=stage("async_post_call_ended_hook"),
            log=_log_hooks(settings),
        )

    def name_of(self, endpoint: Endpoint) -> str:
        """Return the word that hooks are given for the type of a call."""
        litellm = self.settings.call_type_names == "litellm"
        return endpoint.litellm_call_type if litellm else endpoint.call_type

    @cached_property
    def has_hooks(self) -> bool:
        """Any hook runs, so calls carry what hooks look for."""
        return bool(self.pre_call or self.success or self.headers or self.watches)

    @cached_property
    def needs_caller(self) -> bool:
        """It matters who calls."""
        return self.authenticator.required or self.has_hooks

    @cached_property
    def watches(self) -> bool:
        """Something must know how a call ends, or may end it."""
        return bool(self.moderation or self.text or self.iterator or self.failure or self.ended or self.log)


def _log_hooks(settings: Settings) -> LogHooks:
    events = ("pre_api_call", "stream_event", "success_event", "failure_event")
    return LogHooks(**{event: tuple(_either(settings, f"log_{event}")) for event in events})


def _either(settings: Settings, method: str) -> list[Hook]:
    """Return each callback's asynchronous or synchronous hook of one event, in the order of the callbacks."""
    hooks = []
    for callback in settings.callbacks:
        defined = [name for name in (f"async_{method}", method) if overrides(callback, name)]
        if defined:
            hooks.append(Hook(callback, defined[0], timeout=settings.hook_timeout, on_error="allow"))
    return hooks
