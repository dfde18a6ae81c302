"""The keys of LiteLLM's configuration: which of them the gate serves, and what there is in place of the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.builtin import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Where LiteLLM's file has a setting of the gate's.
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "litellm_settings": ("callbacks", "cache_params"),
    "general_settings": ("master_key", "enforce_user_param", "enforced_params", "custom_auth"),
    "callback_settings": tuple(BUILT_IN),
}

# What the forwarder reads of an entry of the model list, and what the gate reads of a cache's settings.
ENTRY = ("model_name", "litellm_params")
ENTRY_PARAMS = ("model", "api_base", "api_key", "extra_headers", "timeout")
CACHE_PARAMS = (
    *("type", "url", "host", "port", "username", "password", "db", "namespace", "max_connections", "socket_timeout"),
    *("ssl", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"),
    *("redis_startup_nodes", "sentinel_nodes", "sentinel_password", "service_name"),
)

_ENTRY_PARAMS = "model_list.litellm_params"
_CACHE_PARAMS = "litellm_settings.cache_params"

_HANDLERS = "name handlers that do the same under litellm_settings.callbacks"
_PRE_CALL = "a handler's async_pre_call_hook can do it"
_AUTH = "general_settings.custom_auth can decide who may call"

# What keeps something out, or to itself: to pass it over would leave a hole. A section, names in it, what to do.
_GUARDS = (
    ("", "guardrails", _HANDLERS),
    ("litellm_settings", "guardrails", _HANDLERS),
    (_ENTRY_PARAMS, "guardrails", _HANDLERS),
    ("litellm_settings", "pre_call_rules", _PRE_CALL),
    ("litellm_settings", "post_call_rules", "a handler's async_post_call_success_hook can do it"),
    ("litellm_settings", "turn_off_message_logging", "handlers' log events are given the messages"),
    ("general_settings", "allowed_ips allowed_routes enable_jwt_auth", _AUTH),
    ("general_settings", "enable_oauth2_auth enable_oauth2_proxy_auth", _AUTH),
    ("general_settings", "reject_clientside_metadata_tags", _PRE_CALL),
    ("general_settings", "service_account_settings", "general_settings.enforced_params holds for every caller"),
)

_LOG_EVENTS = "a handler under litellm_settings.callbacks can have async_log_success_event and async_log_failure_event"
_ONE_UPSTREAM = "a call goes to one upstream, once: there are no retries, fallbacks or cooldowns"
_AS_LEFT = "the upstream gets the body as the hooks leave it"
_SHARED = "entries of one name share the load in turn, without limits"
_COUNT = "limits are those of keys, users and teams, by the callback parallel_request_limiter"
_LLAMA_GUARD = "callback_settings.llamaguard_moderations"
_NO_DATABASE = "there is no database: keys stand under gate_settings.keys, and no spend is kept"

# What only costs a feature. Likewise.
_FEATURES = (
    ("", "router_settings", _ONE_UPSTREAM),
    ("", "mcp_servers", "MCP is not served"),
    ("litellm_settings", "success_callback failure_callback input_callback", _LOG_EVENTS),
    ("litellm_settings", "service_callback service_callbacks", _LOG_EVENTS),
    ("litellm_settings", "drop_params modify_params enable_json_schema_validation", _AS_LEFT),
    ("litellm_settings", "fallbacks default_fallbacks context_window_fallbacks", _ONE_UPSTREAM),
    ("litellm_settings", "content_policy_fallbacks num_retries allowed_fails cooldown_time", _ONE_UPSTREAM),
    ("litellm_settings", "set_verbose json_logs", "it is for Python's logging: the logger is asgi_llm_gate"),
    ("litellm_settings", "max_budget budget_duration", "no budget is kept"),
    ("litellm_settings", "max_parallel_requests", _COUNT),
    ("litellm_settings", "llamaguard_model_name", f"{_LLAMA_GUARD}.model, beside its api_base"),
    ("litellm_settings", "llamaguard_unsafe_content_categories", f"{_LLAMA_GUARD}.categories, by their codes"),
    ("litellm_settings", "banned_keywords_list", "callback_settings.banned_keywords.keywords, or .file"),
    ("litellm_settings", "blocked_user_list", "callback_settings.blocked_user_check.users, or .file"),
    ("litellm_settings", "openai_moderations_model_name", "callback_settings.openai_moderations.model"),
    ("litellm_settings", "cache", "answers are not cached; handlers always have their `cache`"),
    (_CACHE_PARAMS, "mode supported_call_types ttl", "answers are not cached; handlers give a ttl with each value"),
    (_CACHE_PARAMS, "default_in_memory_ttl default_in_redis_ttl", "handlers give a ttl with each value"),
    ("litellm_settings", "request_timeout", "each entry of model_list has its own timeout"),
    ("litellm_settings", "redact_user_api_key_info", "a handler chooses what it keeps of its log events"),
    ("general_settings", "alerting alerting_threshold", _LOG_EVENTS),
    ("general_settings", "database_url database_connection_pool_limit database_connection_timeout", _NO_DATABASE),
    ("general_settings", "store_model_in_db store_prompts_in_spend_logs disable_spend_logs", _NO_DATABASE),
    ("general_settings", "allow_requests_on_db_unavailable disable_spend_updates", _NO_DATABASE),
    ("general_settings", "proxy_batch_write_at disable_reset_budget", _NO_DATABASE),
    ("general_settings", "maximum_spend_logs_retention_period", _NO_DATABASE),
    ("general_settings", "maximum_spend_logs_retention_interval", _NO_DATABASE),
    ("general_settings", "background_health_checks health_check_interval", "upstreams are not asked beforehand"),
    ("general_settings", "max_parallel_requests global_max_parallel_requests", _COUNT),
    ("general_settings", "completion_model", 'a handler\'s async_pre_call_hook can set data["model"]'),
    ("general_settings", "forward_client_headers_to_llm_api", "headers that carry no credentials always go on"),
    ("general_settings", "key_management_system key_management_settings", "os.environ/NAME reads the environment"),
    ("general_settings", "litellm_key_header_name", "keys are read from the headers that clients use for them"),
    ("general_settings", "max_request_size_mb", "gate_settings.max_body_bytes"),
    ("general_settings", "max_response_size_mb", "gate_settings.max_response_bytes"),
    ("general_settings", "pass_through_endpoints", "put the gate in front of an app that has them: LLMGate(app)"),
    ("general_settings", "user_header_name", "general_settings.custom_auth can read it"),
    ("model_list", "model_info", "nothing of it is needed"),
    (_ENTRY_PARAMS, "rpm tpm max_parallel_requests weight", _SHARED),
    (_ENTRY_PARAMS, "max_retries num_retries", _ONE_UPSTREAM),
    (_ENTRY_PARAMS, "temperature max_tokens top_p seed", _PRE_CALL),
    (_ENTRY_PARAMS, "input_cost_per_token output_cost_per_token", "no costs are counted"),
    (_ENTRY_PARAMS, "drop_params", _AS_LEFT),
    (_ENTRY_PARAMS, "organization", "extra_headers can have openai-organization"),
    (_ENTRY_PARAMS, "stream_timeout", "timeout is how long an upstream may be silent, also in a stream"),
)


def _places(rows: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    return {f"{section}.{name}".lstrip("."): what for section, names, what in rows for name in names.split()}


_REFUSED = _places(_GUARDS)
_INSTEAD = {**_places(_FEATURES), **_REFUSED}


def guarded_by(place: str, value: Any) -> str | None:
    """Return what to do in place of a key that guards something; None if it guards nothing, or is off or empty."""
    return _REFUSED.get(_plain(place)) if value else None


def instead_of(place: str) -> str | None:
    """Return what there is in place of a key that the gate does not serve; None if it is no such key of LiteLLM's."""
    if place.startswith("callback_settings."):
        return "a handler takes its settings itself"
    return _INSTEAD.get(_plain(place))


def keys(content: Mapping[Any, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the place of each key of a file that is right, and whether the gate serves it; not of `gate_settings`."""
    for section, values in content.items():
        if section == "model_list":
            yield section, True
            for entry in values:
                yield from _unserved("model_list[]", entry, ENTRY)
                yield from _unserved("model_list[].litellm_params", entry["litellm_params"], ENTRY_PARAMS)
        elif section in SECTIONS:
            yield from ((f"{section}.{name}", name in SECTIONS[section]) for name in values or ())
            cache = (values or {}).get("cache_params", {}) if section == "litellm_settings" else {}
            yield from _unserved("litellm_settings.cache_params", cache, CACHE_PARAMS)
        elif section != "gate_settings":
            yield str(section), section == "environment_variables"


def _unserved(where: str, values: Mapping[Any, Any], served: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    return ((f"{where}.{name}", False) for name in values if name not in served)


def _plain(place: str) -> str:
    """Return a place without the indexes in it."""
    return re.sub(r"\[\d*\]", "", place)
