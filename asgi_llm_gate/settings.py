"""The settings of a gate: their names, what they mean, their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_llm_gate.auth import CustomAuth
    from asgi_llm_gate.cache import DualCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one gate, checked. Sizes are bytes, times are seconds.

    Attributes:
        callbacks: The callbacks, in order.
        callback_settings: The options of hooks that ship, by their names in `callbacks`.
        enforce_user_param: Calls must say who their user is.
        enforced_params: Further fields that calls must carry, dotted for nested ones.
        user_params: The fields that say who the user is; one of them is enough.
        forward_user: ``documented`` drops an enforced `user` where OpenAI's endpoint has none, ``always`` keeps it.
        master_key: The key that callers must present.
        custom_auth: Is asked who is calling, ``(request, api_key)``, in place of the master key.
        model_list: The upstreams of the command line's own server, LiteLLM's entries.
        cache: What hooks are given as `cache`; one of the gate's own if None, on Redis if there is a `redis_url`.
        redis_url: The Redis in which all processes share what hooks keep in their `cache`.
        on_store_error: What becomes of a hook's use of the cache while Redis is away.
        call_type_names: Name call types as LiteLLM's documentation does, or as its code does now.
        hook_timeout: How long a hook may take.
        on_hook_error: What becomes of the call when a hook crashes or takes too long.
        moderation_mode: ``hold``: nothing goes out before the verdict. ``cut``: a stream flows, and a bad one ends it.
        moderation_buffer: How much of a held response is kept before the app must wait.
        keep_alive: Seconds of silence after which a stream that is held back gets a comment; 0 for none.
        cancel_grace: What the app has between the disconnect it is told and its cancellation.
        max_body_bytes: The largest request body, decompressed; of a form, all its fields that are no files.
        max_upload_bytes: The largest form.
        max_json_values: The most values in a request body: a text weighs 2, a key 4, an array or object 11.
        body_timeout: How long a request body may take to arrive.
        max_response_bytes: The largest response that success and failure hooks are shown.
        max_event_bytes: The largest event of a stream that hooks look into.
        streaming_window: Characters of a stream's text that are held back, so that text hooks see patterns whole.
        log_response_bytes: How much of a response is kept for the log events.
        strict: Refuse to start where a hook would not see something it guards, and refuse unknown calls to an API.
        policies: What becomes of endpoint classes that the gate does not look into: ``pass`` or ``deny``, the default;
            and of WebSockets and files of calls, which it looks into by default: ``inspect``, ``pass`` or ``deny``.
        paths: An app's own paths, by their end: a call type, or ``pass`` for what is no LLM call.
        keys: The keys that callers may present beside the master key, each known by its SHA-256, with what hooks are
            to know of who presents it, the models it may use, and its limits.
        users: The limits of users, by their id.
        teams: The limits of teams, by their id.
        lease_seconds: How long the slots of a process that has died stay taken.
        shutdown_timeout: How long open streams may go on after the command line's server is told to stop.
    """

    callbacks: tuple[object, ...] = ()
    callback_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    enforce_user_param: bool = False
    enforced_params: tuple[str, ...] = ()
    user_params: tuple[str, ...] = ("user",)
    forward_user: Literal["documented", "always"] = "documented"
    master_key: str | None = field(default=None, repr=False)
    custom_auth: CustomAuth | None = None
    model_list: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    cache: DualCache | None = None
    redis_url: str | None = field(default=None, repr=False)
    on_store_error: Literal["allow", "reject"] = "allow"
    call_type_names: Literal["documented", "litellm"] = "documented"
    hook_timeout: float = 30.0
    on_hook_error: Literal["reject", "allow"] = "reject"
    moderation_mode: Literal["hold", "cut"] = "hold"
    moderation_buffer: int = 1_000_000
    keep_alive: float = 15.0
    cancel_grace: float = 0.1
    max_body_bytes: int = 10_000_000
    max_upload_bytes: int = 512_000_000
    max_json_values: int = 500_000
    body_timeout: float = 60.0
    max_response_bytes: int = 64_000_000
    max_event_bytes: int = 16_000_000
    streaming_window: int = 0
    log_response_bytes: int = 1_000_000
    strict: bool = False
    policies: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    teams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    lease_seconds: float = 30.0
    shutdown_timeout: float = 10.0

    def keywords(self) -> Any:
        """Return the settings as the keywords of `LLMGate`."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}


class Keywords(TypedDict, total=False):
    """The settings as `LLMGate` takes them: those of `Settings`, in the forms that are easy to write."""

    callbacks: Any
    callback_settings: Mapping[str, Mapping[str, Any]]
    enforce_user_param: bool
    enforced_params: str | list[str] | tuple[str, ...]
    user_params: str | list[str] | tuple[str, ...]
    forward_user: Literal["documented", "always"]
    master_key: str | None
    custom_auth: CustomAuth | str | None
    model_list: list[Mapping[str, Any]] | tuple[Mapping[str, Any], ...]
    cache: DualCache | None
    redis_url: str | None
    on_store_error: Literal["allow", "reject"]
    call_type_names: Literal["documented", "litellm"]
    hook_timeout: float
    on_hook_error: Literal["reject", "allow"]
    moderation_mode: Literal["hold", "cut"]
    moderation_buffer: int
    keep_alive: float
    cancel_grace: float
    max_body_bytes: int
    max_upload_bytes: int
    max_json_values: int
    body_timeout: float
    max_response_bytes: int
    max_event_bytes: int
    streaming_window: int
    log_response_bytes: int
    strict: bool
    policies: Mapping[str, str]
    paths: Mapping[str, str]
    keys: list[Mapping[str, Any]] | tuple[Mapping[str, Any], ...]
    users: Mapping[str, Mapping[str, Any]]
    teams: Mapping[str, Mapping[str, Any]]
    lease_seconds: float
    shutdown_timeout: float
