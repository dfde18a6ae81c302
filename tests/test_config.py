from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_llm_gate import CallHooks, DualCache, LLMGate
from asgi_llm_gate.auth import hash_key
from asgi_llm_gate.builtin import BUILT_IN
from asgi_llm_gate.cache.address import EXPECTED_PARAMS, EXPECTED_URL
from asgi_llm_gate.checks import CHECKS
from asgi_llm_gate.config import _PLACES, CONFIG_VARIABLE, ConfigError, Keywords, Settings, load_settings
from asgi_llm_gate.endpoints import Routes

HANDLERS = """
from asgi_llm_gate import CallHooks

class Handler(CallHooks):
    async def async_pre_call_hook(self, data): ...

class Needy(Handler):
    def __init__(self, level): ...

class Idle(CallHooks): ...

one, two = Handler(), Handler()
number = 5

def who(request, api_key): ...
"""


class Guard(CallHooks):
    async def async_pre_call_hook(self, data): ...


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Return the function that writes a configuration, with handlers beside it, and loads it from its folder."""
    (tmp_path / "hooks.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)

    def load(text: str | bytes, environ: dict[str, str] | None = None, **keywords) -> Settings:
        Path("gate.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_settings("gate.yaml", keywords, environ or {})

    yield load
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def warned(caplog):
    """Return the function that tells what was warned of."""
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    return lambda: [record.getMessage() for record in caplog.records]


WHOLE = """
model_list:
  - model_name: gpt-*
    litellm_params:
      model: openai/gpt-*
      api_base: https://upstream.example/v1
      api_key: os.environ/UPSTREAM_KEY
      extra_headers: {x-team: os.environ/TEAM}
      timeout: 30
litellm_settings:
  callbacks: [hooks.one, hooks.two, hooks.Handler]
  cache_params: {type: redis, host: h, password: os.environ/UPSTREAM_KEY}
general_settings:
  master_key: os.environ/MASTER
  enforce_user_param: true
  enforced_params: [metadata.team, os.environ/PARAM]
  custom_auth: hooks.who
gate_settings:
  callback_settings: {}
  redis_url: redis://:hunter2@h:1
  on_store_error: reject
  user_params: safety_identifier
  forward_user: always
  call_type_names: litellm
  hook_timeout: 0.5
  on_hook_error: allow
  moderation_mode: cut
  moderation_buffer: 1
  cancel_grace: 0
  keep_alive: 20
  max_body_bytes: 2
  max_upload_bytes: 9
  max_json_values: 3
  body_timeout: 4
  max_response_bytes: 5
  max_event_bytes: 6
  streaming_window: 7
  log_response_bytes: 8
  strict: false
  policies: {invocations: pass, batches: deny}
  paths: {/v2/ask: completion, /v2/files: pass}
  keys:
    - api_key: os.environ/ADA
      key_alias: ada
      user_id: 7
      team_id: blue
      models: [gpt-*, o3]
      max_parallel_requests: 1
      rpm_limit: os.environ/RPM
      tpm_limit: 0
      metadata: {tags: [os.environ/TEAM], model_rpm_limit: {gpt-4: os.environ/RPM}}
    - {api_key_sha256: ABCDEF78abcdef78abcdef78abcdef78abcdef78abcdef78abcdef78abcdef78, models: o3}
  users: {7: {rpm_limit: 2}}
  teams: {blue: {tpm_limit: 3, metadata: {cost: 5}}}
  lease_seconds: 9
  shutdown_timeout: 0
"""


def test_every_setting_of_a_file_is_read(configured):
    environ = {
        "UPSTREAM_KEY": "sk-up",
        "TEAM": "blue",
        "MASTER": "sk-master",
        "PARAM": "tenant",
        "ADA": "sk-ada",
        "RPM": "60",
    }
    settings = configured(WHOLE, environ)
    given = dataclasses.asdict(dataclasses.replace(settings, callbacks=(), custom_auth=None, cache=None))
    assert [type(callback).__name__ for callback in settings.callbacks] == ["Handler"] * 3
    assert settings.callbacks[0] is not settings.callbacks[1]
    assert settings.custom_auth.__name__ == "who"
    assert given == {
        "callbacks": (),
        "callback_settings": {},
        "enforce_user_param": True,
        "enforced_params": ("metadata.team", "tenant"),
        "user_params": ("safety_identifier",),
        "forward_user": "always",
        "master_key": "sk-master",
        "custom_auth": None,
        "model_list": (
            {
                "model_name": "gpt-*",
                "litellm_params": {
                    "model": "openai/gpt-*",
                    "api_base": "https://upstream.example/v1",
                    "api_key": "sk-up",
                    "extra_headers": {"x-team": "blue"},
                    "timeout": 30,
                },
            },
        ),
        "cache": None,
        "redis_url": "redis://:hunter2@h:1",
        "on_store_error": "reject",
        "call_type_names": "litellm",
        "hook_timeout": 0.5,
        "on_hook_error": "allow",
        "moderation_mode": "cut",
        "moderation_buffer": 1,
        "keep_alive": 20.0,
        "cancel_grace": 0.0,
        "max_body_bytes": 2,
        "max_upload_bytes": 9,
        "max_json_values": 3,
        "body_timeout": 4.0,
        "max_response_bytes": 5,
        "max_event_bytes": 6,
        "streaming_window": 7,
        "log_response_bytes": 8,
        "strict": False,
        "policies": {"invocations": "pass", "batches": "deny"},
        "paths": {"/v2/ask": "completion", "/v2/files": "pass"},
        "keys": (
            {
                "api_key_sha256": hash_key("sk-ada"),
                "key_alias": "ada",
                "user_id": "7",
                "team_id": "blue",
                "models": ("gpt-*", "o3"),
                "max_parallel_requests": 1,
                "rpm_limit": 60,
                "tpm_limit": 0,
                "metadata": {"tags": ["blue"], "model_rpm_limit": {"gpt-4": 60}},
            },
            {"api_key_sha256": "abcdef78" * 8, "models": ("o3",)},
        ),
        "users": {"7": {"rpm_limit": 2}},
        "teams": {"blue": {"tpm_limit": 3, "metadata": {"cost": 5}}},
        "lease_seconds": 9.0,
        "shutdown_timeout": 0.0,
    }


def test_no_key_is_kept_in_clear(configured):
    """Not even the text of a variable; and the settings, given as keywords once more, are the same."""
    keys = "[{api_key: sk-first, metadata: {a: [os.environ/A]}, models: os.environ/A}, {api_key: os.environ/KEY}]"
    settings = configured(f"gate_settings: {{keys: {keys}}}", {"KEY": "sk-second", "A": "b"})
    assert [key["api_key_sha256"] for key in settings.keys] == [hash_key("sk-first"), hash_key("sk-second")]
    assert "api_key" not in settings.keys[0]
    assert repr(settings.keys[0]["metadata"]) == "{'a': ['b']}"
    assert "sha256" not in repr(settings)
    assert load_settings(None, settings.keywords(), {}) == settings


def test_a_file_may_be_given_as_a_path_or_as_its_content(configured):
    configured("general_settings: {enforce_user_param: true}")
    wanted = load_settings(Path("gate.yaml"), {}, {})
    assert wanted == load_settings("gate.yaml", {}, {})
    content = MappingProxyType({"general_settings": MappingProxyType({"enforce_user_param": True})})
    assert wanted == load_settings(content, {}, {})
    assert wanted.enforce_user_param


def test_a_file_may_leave_sections_empty(configured):
    assert configured("general_settings:\nlitellm_settings: {}\ngate_settings:\n") == Settings()


def test_yaml_may_share_parts(configured):
    text = "x-parts: &parts {hook_timeout: 3, cancel_grace: 1}\ngate_settings:\n  <<: *parts\n  cancel_grace: 2\n"
    settings = configured(text)
    assert (settings.hook_timeout, settings.cancel_grace) == (3, 2)


def test_a_shared_part_may_be_made_of_another(configured):
    """Its keys stand twice once they are put together, wherever it is read first."""
    text = """
x-parts: &parts {hook_timeout: 1, cancel_grace: 1}
x-below: {deeper: &others {<<: *parts, hook_timeout: 2}}
gate_settings: {<<: [*others, {body_timeout: 4}], cancel_grace: 3}
"""
    settings = configured(text)
    assert (settings.hook_timeout, settings.cancel_grace, settings.body_timeout) == (2, 3, 4)


def test_a_variable_that_the_gate_does_not_read_need_not_be_set(configured, warned):
    """A file that serves LiteLLM too names a database."""
    configured("general_settings: {database_url: os.environ/DB}\nrouter_settings: {redis_host: os.environ/HOST}")
    assert [line.partition(" ")[0] for line in warned()] == ["general_settings.database_url", "router_settings"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(configured, warned):
    assert configured("\ufeffgate_settings: {hook_timeout: 3}").hook_timeout == 3
    assert warned() == []


@pytest.mark.parametrize("path", ["/ask", "/v2/ask.json", "/v2/{}/ask", "/{}/{}/ask", "/v2/a:b,c@d~e'f", "/...", "/.a"])
def test_a_path_of_the_app_is_gated(path):
    settings = load_settings(None, {"paths": {path: "completion"}}, {})
    found = Routes(paths=settings.paths).find(path.replace("{}", "some"))
    assert found is not None
    assert found.call_type == "completion"


ENVIRON = {"REDIS_HOST": "around", "PASSWORD": "hunter2"}


@pytest.mark.parametrize(
    ("text", "keywords", "shown", "policy"),
    [
        ("gate_settings: {redis_url: 'redis://:hunter2@h:1/2'}", {}, "Redis at h:1", "allow"),
        ("gate_settings: {redis_url: redis://h, on_store_error: reject}", {}, "Redis at h:6379", "reject"),
        ("gate_settings: {redis_url: redis://h}", {"redis_url": "redis://i"}, "Redis at i:6379", "allow"),
        ("gate_settings: {redis_url: redis://h}", {"on_store_error": "reject"}, "Redis at h:6379", "reject"),
        ("litellm_settings: {cache_params: {host: h, password: os.environ/PASSWORD}}", {}, "Redis at h:6379", "allow"),
        ("litellm_settings: {cache_params: {type: redis}}", {}, "Redis at around:6379", "allow"),
        ("litellm_settings: {cache_params: {host: h}}", {"redis_url": "redis://i"}, "Redis at i:6379", "allow"),
    ],
)
def test_a_redis_that_is_configured_is_behind_the_cache(text, keywords, shown, policy, configured):
    settings = configured(text, ENVIRON, **keywords)
    assert str(settings.cache.redis_cache.store.address) == shown
    assert settings.cache.on_store_error == policy
    assert "hunter2" not in repr(settings)


def test_litellms_parameters_name_the_keys_and_the_wait_too(configured):
    settings = configured("litellm_settings: {cache_params: {host: h, namespace: mine, socket_timeout: 5}}")
    store = settings.cache.redis_cache.store
    assert (store.prefix, store.address.timeout) == ("{mine}:", 5)


@pytest.mark.parametrize("text", ["gate_settings: {}", "litellm_settings: {cache_params: {type: local}}"])
def test_without_a_redis_the_cache_is_the_gates_own(text, configured):
    assert configured(text, {"REDIS_HOST": "around"}).cache is None


def test_a_cache_that_is_given_is_the_one_that_is_used(configured):
    """Whatever the file says of a Redis; and the settings of a gate can be given to another one."""
    cache = DualCache()
    assert configured("gate_settings: {redis_url: redis://h}", cache=cache).cache is cache
    settings = configured("gate_settings: {redis_url: redis://h}")
    assert load_settings(None, settings.keywords(), {}).cache is settings.cache


def test_where_redis_py_is_not_installed_one_line_says_so(configured, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.connection", None)
    for text, place in [
        ("gate_settings: {redis_url: redis://h}", "gate_settings.redis_url"),
        ("litellm_settings: {cache_params: {host: h}}", "litellm_settings.cache_params"),
    ]:
        with pytest.raises(ConfigError) as caught:
            configured(text)
        line = f"{place}: the cache on Redis needs redis: pip install 'asgi-llm-gate[redis]'"
        assert str(caught.value).endswith(line)


def test_keywords_are_the_settings():
    """What `LLMGate` takes by keyword is what `Settings` holds, name by name."""
    assert list(Keywords.__annotations__) == [field.name for field in dataclasses.fields(Settings)]


def test_every_setting_has_its_check_and_its_place():
    """Each keyword can stand in a file, save the cache object; LiteLLM's way to name the cache is the file's alone."""
    names = set(Keywords.__annotations__)
    assert names - set(CHECKS) == {"callbacks", "custom_auth", "model_list"}
    assert set(CHECKS) <= names
    assert set(_PLACES) ^ names == {"cache", "cache_params", *BUILT_IN}
    for name, place in _PLACES.items():
        section, _, inner = place.rpartition(".")
        assert inner == name
        assert section in {"", "litellm_settings", "general_settings", "callback_settings", "gate_settings"}


def test_every_setting_is_a_keyword_too():
    cache, guard = DualCache(), Guard()
    models = [{"model_name": "m", "litellm_params": {"model": "openai/m"}}]
    own = {
        "callbacks": [guard],
        "enforced_params": ["a"],
        "user_params": ["b"],
        "custom_auth": len,
        "model_list": models,
        "cache": cache,
    }
    plain = {field.name: getattr(Settings(), field.name) for field in dataclasses.fields(Settings)} | own
    settings = load_settings(None, plain, {})
    tuples = {"callbacks": (guard,), "enforced_params": ("a",), "user_params": ("b",), "model_list": tuple(models)}
    assert settings == Settings(**plain | tuples)


def test_a_keyword_wins_over_the_file(configured):
    settings = configured("gate_settings: {hook_timeout: 3, cancel_grace: 1}", hook_timeout=4)
    assert (settings.hook_timeout, settings.cancel_grace) == (4, 1)


def test_callbacks_add_up(configured):
    """A guard that a file configures is never dropped by a keyword; it comes first."""
    guard = Guard()
    settings = configured("litellm_settings: {callbacks: hooks.one}", callbacks=[guard, "hooks.two", Guard])
    one, second, two, made = settings.callbacks
    assert (type(one).__name__, second, type(two).__name__, type(made)) == ("Handler", guard, "Handler", Guard)
    assert configured("litellm_settings: {callbacks: hooks.one}", callbacks=()).callbacks == (one,)


def test_a_callback_may_stand_without_a_list():
    guard = Guard()
    assert load_settings(None, {"callbacks": guard}, {}).callbacks == (guard,)
    assert load_settings({"litellm_settings": {"callbacks": guard}}, {}, {}).callbacks == (guard,)


def test_a_callback_may_be_a_mapping_or_a_tuple_itself():
    """What only looks like a list or a section is taken as it is."""

    class Table(dict):
        async def async_pre_call_hook(self, data): ...

    class Row(NamedTuple):
        level: int

        async def async_pre_call_hook(self, data): ...

    table, row = Table(a="os.environ/NONE"), Row(1)
    callbacks = load_settings(None, {"callbacks": [table, row]}, {}).callbacks
    assert callbacks[0] is table
    assert callbacks[1] is row
    assert load_settings(None, {"callbacks": row}, {}).callbacks[0] is row


def test_a_callbacks_name_may_stand_in_the_environment(configured):
    one, two = configured(
        "litellm_settings: {callbacks: [hooks.one, os.environ/HOOK]}", {"HOOK": "hooks.two"}
    ).callbacks
    assert type(one) is type(two)


def test_the_file_named_by_the_environment_is_used_when_nothing_else_is_said(configured):
    configured("gate_settings: {hook_timeout: 3}")
    environ = {CONFIG_VARIABLE: "gate.yaml"}
    assert CONFIG_VARIABLE == "ASGI_LLM_GATE_CONFIG"
    assert load_settings(None, {}, environ).hook_timeout == 3
    assert load_settings(None, {"cancel_grace": 1}, environ).hook_timeout == 30
    assert load_settings({}, {}, environ).hook_timeout == 30
    assert load_settings(None, {}, {CONFIG_VARIABLE: ""}) == load_settings(None, {}, {}) == Settings()


def test_the_environment_is_the_processs_own(configured, monkeypatch):
    configured("general_settings: {master_key: os.environ/THE_KEY}", {"THE_KEY": "sk-other"})
    monkeypatch.setenv(CONFIG_VARIABLE, "gate.yaml")
    monkeypatch.setenv("THE_KEY", "sk-own")
    assert LLMGate(None).settings.master_key == "sk-own"


def test_the_gate_is_loaded_as_vllm_loads_middleware(configured, monkeypatch):
    """By its dotted name, into a Starlette app, without arguments."""
    configured("general_settings: {enforce_user_param: true}")
    monkeypatch.setenv(CONFIG_VARIABLE, "gate.yaml")
    module, _, name = "asgi_llm_gate.LLMGate".rpartition(".")
    app = Starlette()
    app.add_middleware(getattr(importlib.import_module(module), name))
    with TestClient(app) as client:
        refused = client.post("/v1/chat/completions", json={"model": "m", "messages": []})
        assert client.get("/health").status_code == 404
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "user")


FROM_ENVIRON: list[tuple[str, str, object]] = [
    ("enforce_user_param", "true", True),
    ("enforce_user_param", "False", False),
    ("hook_timeout", "2", 2.0),
    ("hook_timeout", " 0.5\n", 0.5),
    ("max_body_bytes", "1000", 1000),
    ("on_hook_error", "allow", "allow"),
    ("master_key", "12345", "12345"),
    ("user_params", "tenant", ("tenant",)),
]


@pytest.mark.parametrize(("name", "text", "value"), FROM_ENVIRON)
def test_a_variable_is_read_as_its_setting_needs_it(name, text, value):
    found = getattr(load_settings(None, {name: "os.environ/X"}, {"X": text}), name)
    assert found == value
    assert type(found) is type(value)


def test_secrets_are_not_shown():
    keywords = {
        "master_key": "sk-master",
        "model_list": [{"model_name": "m", "litellm_params": {"model": "m", "api_key": "sk-up"}}],
    }
    assert "sk-" not in repr(load_settings(None, keywords, {}))


def test_settings_can_not_be_changed():
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.hook_timeout = 1
    assert not hasattr(settings, "__dict__")


NAMES = (
    "async_pre_call_hook, async_moderation_hook, async_post_call_success_hook, async_post_call_streaming_hook, "
    "async_post_call_streaming_iterator_hook, async_post_call_failure_hook, async_post_call_response_headers_hook, "
    "async_post_call_ended_hook, "
    "async_log_pre_api_call, async_log_stream_event, async_log_success_event, async_log_failure_event, "
    "log_pre_api_call, log_stream_event, log_success_event, log_failure_event"
)
NOWHERE = "there is no module nowhere, beside the configuration file or installed"
HANDLERS_INSTEAD = "name handlers that do the same under litellm_settings.callbacks"
AUTH_INSTEAD = "general_settings.custom_auth can decide who may call"
HIDDEN = "what the environment variable holds"
PATH = "expected a path such as /v2/ask, where a segment but the last may be {}"
NEEDY = "Needy can't be made: TypeError: Needy.__init__() missing 1 required positional argument: 'level'"
CLASSES = "batches, files, invocations, realtime, responses_ws, uploads"

_SHA = "a" * 64
_LIMITED = "max_parallel_requests, rpm_limit, tpm_limit, metadata"
_KEY_SETTINGS = f"api_key, api_key_sha256, key_alias, user_id, team_id, models, {_LIMITED}"

# What of each setting is wrong, its place within it, and what is said.
WRONG_KEYS = [
    ("one key", "sk-secret", ": expected a list of keys, got str"),
    ("keys by name", "{sk-secret: {}}", ": expected a list of keys, got dict"),
    ("a bare key", "[sk-secret]", "[0]: expected settings by name, got str"),
    ("nothing of a key", "[null]", "[0]: expected settings by name, got NoneType"),
    ("no key", "[{user_id: a}]", "[0]: expected either api_key or api_key_sha256"),
    ("both", f"[{{api_key: sk-secret, api_key_sha256: {_SHA}}}]", "[0]: expected either api_key or api_key_sha256"),
    ("an empty key", "[{api_key: os.environ/EMPTY}]", "[0].api_key: expected text, got none"),
    ("a number", "[{api_key: 1234}]", "[0].api_key: expected text, got int"),
    ("a line's end", "[{api_key: os.environ/LINE}]", "[0].api_key: holds a character that an API key can't have"),
    ("no variable", "[{api_key: os.environ/NOT}]", "[0].api_key: the environment variable NOT is not set"),
    ("a key as its hash", "[{api_key_sha256: sk-secret}]", "[0].api_key_sha256: expected 64 hex digits"),
    ("too short", f"[{{api_key_sha256: {_SHA[1:]}}}]", "[0].api_key_sha256: expected 64 hex digits"),
    ("digits alone", f"[{{api_key_sha256: {'1' * 64}}}]", "[0].api_key_sha256: expected 64 hex digits"),
    ("twice", "[{api_key: sk-secret}, {api_key: b}, {api_key: sk-secret}]", "[2]: has the same key as [0]"),
    (
        "once by its hash",
        f"[{{api_key: sk-secret}}, {{api_key_sha256: {hash_key('sk-secret').upper()}}}]",
        "[1]: has the same key as [0]",
    ),
    ("a typo", "[{api_key: a, rpm: 1}]", f"[0].rpm: no setting there; those are {_KEY_SETTINGS}"),
    ("a key as a name", "[{sk-secret: null}]", f"[0]: no setting; those are {_KEY_SETTINGS}"),
    ("a number as a name", "[{5: a}]", f"[0]: no setting; those are {_KEY_SETTINGS}"),
    ("a limit in words", "[{api_key: a, rpm_limit: few}]", "[0].rpm_limit: expected a whole number from 0, got 'few'"),
    ("a limit below", "[{api_key: a, tpm_limit: -1}]", "[0].tpm_limit: expected a whole number from 0, got -1"),
    (
        "no limit",
        "[{api_key: a, max_parallel_requests: }]",
        "[0].max_parallel_requests: expected a whole number from 0, got None",
    ),
    ("a model of none", "[{api_key: a, models: [b, 3]}]", "[0].models[1]: expected text, got int"),
    ("a truth as an id", "[{api_key: a, user_id: true}]", "[0].user_id: expected text, got bool"),
    ("a blank team", "[{api_key: a, team_id: ' '}]", "[0].team_id: expected text, got none"),
    ("metadata as text", "[{api_key: a, metadata: b}]", "[0].metadata: expected values by name, got str"),
    (
        "one limit for all models",
        "[{api_key: a, metadata: {model_rpm_limit: 5}}]",
        "[0].metadata.model_rpm_limit: expected limits by model, got int",
    ),
    (
        "a model's limit in words",
        "[{api_key: a, metadata: {model_tpm_limit: {gpt: few}}}]",
        "[0].metadata.model_tpm_limit.gpt: expected a whole number from 0, got 'few'",
    ),
]
WRONG_USERS = [
    ("[{user_id: a}]", ": expected users by id, got list"),
    ("{a: 5}", ".a: expected settings by name, got int"),
    ("{a: }", ".a: expected settings by name, got NoneType"),
    (
        "{a: {models: [b]}}",
        f".a.models: no setting there; those are {_LIMITED}",
    ),
    ("{a: {rpm_limit: 1.5}}", ".a.rpm_limit: expected a whole number from 0, got 1.5"),
    ("{true: {rpm_limit: 1}}", ": expected text, got bool"),
    ('{7: {rpm_limit: 1}, "7": {}}', ".7: stands here twice"),
]

# The text of a file, and the whole line that says what is wrong with it.
WRONG: dict[str, tuple[str | bytes, str]] = {
    # What is no configuration at all.
    "nothing": ("", "expected sections at the top, got nothing"),
    "comments": ("# callbacks: x\n", "expected sections at the top, got nothing"),
    "a list": ("- a", "expected sections at the top, got list"),
    "text": ("callbacks", "expected sections at the top, got str"),
    "not closed": ("a: [\n", "line 2: expected the node content, but found '<stream end>'"),
    "a tab": ("a:\n\t- b", "line 2: found character '\\t' that cannot start any token"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: but found another document"),
    "a twice": ("gate_settings:\n  hook_timeout: 3\n  hook_timeout: 4", "line 3: hook_timeout stands here twice"),
    "a section twice": ("general_settings: {}\n\ngeneral_settings: {}", "line 3: general_settings stands here twice"),
    "a list as a key": ("? [a]\n: b", "line 1: found unhashable key"),
    "an object": ("a: !!map:os x", "line 1: could not determine a constructor for the tag"),
    "an unknown alias": ("a: *b", "line 1: found undefined alias"),
    "a control character": ("a: 1\nb: \x01", "line 2: a character that YAML does not allow"),
    "latin-1": ("a: é".encode("latin-1"), "not UTF-8 text"),
    "utf-16": ("a: 1".encode("utf-16"), "not UTF-8 text"),
    "too deep": ("[" * 5000, "nested too deep"),
    "endless": ("gate_settings: {paths: &a {b: *a}}", "nested too deep"),
    "an endless key": ("? &a [*a]\n: b", "line 1: found unconstructable recursive node"),
    "a day that is none": ("a: 1\nb: 2024-02-30", "line 2: this looks like timestamp and is none; text takes quotes"),
    "a number that is none": ("a: 0x_", "line 1: this looks like int and is none; text takes quotes"),
    "an empty number": ("a: !!float ''", "line 1: this looks like float and is none; text takes quotes"),
    "a truth that is none": ("a: !!bool sk-1", "line 1: this looks like bool and is none; text takes quotes"),
    "a time that is none": ("a: !!timestamp x", "line 1: this looks like timestamp and is none; text takes quotes"),
    "a secret like an alias": ("general_settings:\n  master_key: *sk-1", "line 2: found undefined alias"),
    "a secret like a tag": (
        "general_settings:\n  master_key: !sk-1",
        "line 2: could not determine a constructor for the tag",
    ),
    "a secret like a tag with a handle": (
        "general_settings:\n  master_key: !sk!1",
        "line 2: found undefined tag handle",
    ),
    # Sections.
    "a section that is a list": ("general_settings: [a]", "general_settings: expected settings by name, got list"),
    "a section that is text": ("gate_settings: hooks", "gate_settings: expected settings by name, got str"),
    # The environment.
    "an unset variable": (
        "general_settings: {master_key: os.environ/KEY}",
        "general_settings.master_key: the environment variable KEY is not set",
    ),
    "an unset variable in a list": (
        "general_settings: {enforced_params: [a, os.environ/PARAM]}",
        "general_settings.enforced_params[1]: the environment variable PARAM is not set",
    ),
    "an unset variable in an entry": (
        "model_list: [{litellm_params: {api_key: os.environ/KEY}}]",
        "model_list[0].litellm_params.api_key: the environment variable KEY is not set",
    ),
    "an unset variable of a cache": (
        "litellm_settings: {cache_params: {type: os.environ/KIND}}",
        "litellm_settings.cache_params.type: the environment variable KIND is not set",
    ),
    "an unset variable of a callback": (
        "litellm_settings: {callbacks: [hooks.one, os.environ/HOOK]}",
        "litellm_settings.callbacks[1]: the environment variable HOOK is not set",
    ),
    "a variable with a line break": (
        'general_settings: {master_key: "os.environ/A\\nB"}',
        "general_settings.master_key: the environment variable A\\nB is not set",
    ),
    "a variable that is no callback": (
        "litellm_settings: {callbacks: [os.environ/SECRET]}",
        "litellm_settings.callbacks[0]: " + HIDDEN + " can't be loaded",
    ),
    "a variable that is no function": (
        "general_settings: {custom_auth: os.environ/SECRET}",
        "general_settings.custom_auth: what the environment variable holds can't be loaded",
    ),
    "a variable that is no kind of cache": (
        "litellm_settings: {cache_params: {type: os.environ/SECRET}}",
        f"litellm_settings.cache_params.type: only local and redis are served by this version, got {HIDDEN}",
    ),
    "a variable of the wrong kind": (
        "gate_settings: {hook_timeout: os.environ/SECRET}",
        "gate_settings.hook_timeout: expected a number of seconds, got " + HIDDEN,
    ),
    "an empty variable": (
        "general_settings: {master_key: os.environ/EMPTY}",
        "general_settings.master_key: expected text, got none",
    ),
    # Callbacks.
    "a callback that is nowhere": (
        "litellm_settings: {callbacks: [hooks.one, nowhere.handler]}",
        f"litellm_settings.callbacks[1]: nowhere.handler: {NOWHERE}",
    ),
    "an attribute that is not there": (
        "litellm_settings: {callbacks: hooks.three}",
        "litellm_settings.callbacks: hooks.three: hooks.py has no three",
    ),
    "a class that needs arguments": (
        "litellm_settings: {callbacks: hooks.Needy}",
        f"litellm_settings.callbacks: hooks.Needy: {NEEDY}",
    ),
    "no hook": (
        "litellm_settings: {callbacks: hooks.Idle}",
        f"litellm_settings.callbacks: hooks.Idle: Idle has no hook; a callback has some of {NAMES}",
    ),
    "a number by name": (
        "litellm_settings: {callbacks: hooks.number}",
        f"litellm_settings.callbacks: hooks.number: int has no hook; a callback has some of {NAMES}",
    ),
    "a number": (
        "litellm_settings: {callbacks: 5}",
        f"litellm_settings.callbacks: int has no hook; a callback has some of {NAMES}",
    ),
    "a built-in hook of LiteLLM": (
        "litellm_settings: {callbacks: [hide_secrets]}",
        "litellm_settings.callbacks[0]: hide_secrets: not served by this version",
    ),
    "options of a hook in two places": (
        "callback_settings: {openai_moderations: {}}\ngate_settings: {callback_settings: {openai_moderations: {}}}",
        "gate_settings.callback_settings.openai_moderations: stands under callback_settings.openai_moderations too",
    ),
    "options of a hook as text": (
        "callback_settings: {openai_moderations: fast}",
        "callback_settings.openai_moderations: expected options by name, got str",
    ),
    "no callback at all": (
        "litellm_settings:\n  callbacks:",
        "litellm_settings.callbacks: expected a value, got nothing",
    ),
    "an empty item": (
        "litellm_settings: {callbacks: [null]}",
        f"litellm_settings.callbacks[0]: NoneType has no hook; a callback has some of {NAMES}",
    ),
    # What later versions serve.
    "another kind of cache": (
        "litellm_settings: {cache_params: {type: s3, host: h}}",
        "litellm_settings.cache_params.type: only local and redis are served by this version, got 's3'",
    ),
    "a Redis that is nowhere": (
        "litellm_settings: {cache_params: {type: redis}}",
        f"litellm_settings.cache_params: {EXPECTED_PARAMS}",
    ),
    "a namespace that is no text": (
        "litellm_settings: {cache_params: {host: h, namespace: 5}}",
        "litellm_settings.cache_params.namespace: expected text, got int",
    ),
    "a Redis of no such kind": (
        "gate_settings: {redis_url: os.environ/SECRET}",
        f"gate_settings.redis_url: {EXPECTED_URL}",
    ),
    "a Redis as a number": ("gate_settings: {redis_url: 6379}", "gate_settings.redis_url: expected text, got int"),
    "a policy for the store": (
        "gate_settings: {on_store_error: ignore}",
        "gate_settings.on_store_error: expected allow or reject, got 'ignore'",
    ),
    "a cache as text": (
        "litellm_settings: {cache_params: redis}",
        "litellm_settings.cache_params: expected settings by name, got str",
    ),
    **{
        f"later: {name}": (f"gate_settings: {{{name}: 1}}", f"gate_settings.{name}: not served by this version")
        for name in ("inspector",)
    },
    "LiteLLM's guardrails": (
        "guardrails: [{guardrail_name: a}]",
        f"guardrails: not served by this version; {HANDLERS_INSTEAD}",
    ),
    "LiteLLM's older guardrails": (
        "litellm_settings: {guardrails: [{a: {}}]}",
        f"litellm_settings.guardrails: not served by this version; {HANDLERS_INSTEAD}",
    ),
    "a model's guardrails": (
        "model_list: [{model_name: a, litellm_params: {model: a, guardrails: [b]}}]",
        f"model_list[0].litellm_params.guardrails: not served by this version; {HANDLERS_INSTEAD}",
    ),
    "an address list": (
        "general_settings: {allowed_ips: [10.0.0.1]}",
        f"general_settings.allowed_ips: not served by this version; {AUTH_INSTEAD}",
    ),
    # Variables of its own.
    "variables as a list": (
        "environment_variables: [A=b]",
        "environment_variables: expected values by name, got list",
    ),
    "a variable of a list": (
        "environment_variables: {A: [b]}",
        "environment_variables.A: expected text, got list",
    ),
    "a variable of nothing": (
        "environment_variables: {A: }",
        "environment_variables.A: expected text, got NoneType",
    ),
    "a variable that ends": (
        'environment_variables: {A: "b\\0c"}',
        "environment_variables.A: expected text, got str",
    ),
    **{
        f"a variable named {name!r}": (
            f"environment_variables: {{{name}: b}}",
            f"environment_variables: expected names of variables, got {shown}",
        )
        for name, shown in (("5", "5"), ("A=B", "'A=B'"), ("''", "''"))
    },
    "a variable that is set from one that is not": (
        "environment_variables: {A: os.environ/B}\ngeneral_settings: {master_key: os.environ/A}",
        "general_settings.master_key: the environment variable A is not set",
    ),
    "a timeout in words": (
        "model_list: [{model_name: a, litellm_params: {model: a, timeout: os.environ/SECRET}}]",
        "model_list[0].litellm_params.timeout: must be a number of seconds above 0",
    ),
    "a window below nothing": (
        "gate_settings: {streaming_window: -1}",
        "gate_settings.streaming_window: expected a whole number from 0, got -1",
    ),
    "a mode that is none": (
        "gate_settings: {moderation_mode: race}",
        "gate_settings.moderation_mode: expected hold or cut, got 'race'",
    ),
    "inspect": (
        "gate_settings: {policies: {files: deny, invocations: inspect}}",
        "gate_settings.policies.invocations: inspect is not served by this version, only pass or deny",
    ),
    "a policy of no kind for a WebSocket": (
        "gate_settings: {policies: {realtime: inspct}}",
        "gate_settings.policies.realtime: expected inspect or pass or deny, got 'inspct'",
    ),
    # Values of general_settings.
    "a number as a key": (
        "general_settings: {master_key: 1234}",
        "general_settings.master_key: expected text, got int",
    ),
    "a blank key": ("general_settings: {master_key: ' '}", "general_settings.master_key: expected text, got none"),
    "a key with a space": (
        "general_settings: {master_key: 'sk- 1'}",
        "general_settings.master_key: holds a character that an API key can't have",
    ),
    "a key read with its line's end": (
        "general_settings: {master_key: os.environ/LINE}",
        "general_settings.master_key: holds a character that an API key can't have",
    ),
    "a key that no header carries": (
        "general_settings: {master_key: schlüssel}",
        "general_settings.master_key: holds a character that an API key can't have",
    ),
    "no key": ("general_settings: {master_key: null}", "general_settings.master_key: expected a value, got nothing"),
    "a quoted truth": (
        "general_settings: {enforce_user_param: 'true'}",
        "general_settings.enforce_user_param: expected true or false, got 'true'",
    ),
    "a number as a truth": (
        "general_settings: {enforce_user_param: 1}",
        "general_settings.enforce_user_param: expected true or false, got 1",
    ),
    "a name that is none": (
        "general_settings: {enforced_params: [user, 3]}",
        "general_settings.enforced_params[1]: expected text, got int",
    ),
    "an empty name": (
        "general_settings: {enforced_params: ''}",
        "general_settings.enforced_params: expected text, got none",
    ),
    "names as a mapping": (
        "general_settings: {enforced_params: {user: true}}",
        "general_settings.enforced_params: expected a name or a list of names, got dict",
    ),
    "an asker that is nowhere": (
        "general_settings: {custom_auth: nowhere.who}",
        f"general_settings.custom_auth: nowhere.who: {NOWHERE}",
    ),
    "an asker that is no function": (
        "general_settings: {custom_auth: hooks.number}",
        "general_settings.custom_auth: expected a function or its name, got 'hooks.number'",
    ),
    # Keys, users and teams.
    **{
        f"{name}: {given}": (f"gate_settings: {{keys: {given}}}", f"gate_settings.keys{line}")
        for name, given, line in WRONG_KEYS
    },
    **{
        f"users: {given}": (f"gate_settings: {{users: {given}}}", f"gate_settings.users{line}")
        for given, line in WRONG_USERS
    },
    "teams as a list": ("gate_settings: {teams: [a]}", "gate_settings.teams: expected teams by id, got list"),
    # Values of gate_settings.
    "no user parameter": ("gate_settings: {user_params: []}", "gate_settings.user_params: expected at least one name"),
    "a wrong word": (
        "gate_settings: {on_hook_error: rejct}",
        "gate_settings.on_hook_error: expected reject or allow, got 'rejct'",
    ),
    "a list for a word": (
        "gate_settings: {forward_user: [always]}",
        "gate_settings.forward_user: expected documented or always, got list",
    ),
    "a secret in the wrong place": (
        "general_settings: {enforce_user_param: {api_key: sk-1}}",
        "general_settings.enforce_user_param: expected true or false, got dict",
    ),
    "a long text in the wrong place": (
        f"gate_settings: {{on_hook_error: {'x' * 59}}}",
        "gate_settings.on_hook_error: expected reject or allow, got str",
    ),
    "a callback of a long name": (
        f"litellm_settings: {{callbacks: {'a' * 300}.b}}",
        f"litellm_settings.callbacks: {'a' * 300}.b: {NOWHERE.replace('nowhere', 'a' * 300)}",
    ),
    "a callback with a line break": (
        'litellm_settings: {callbacks: "a\\nb.c"}',
        "litellm_settings.callbacks: a\\nb.c: expected module.attribute",
    ),
    "a policy with a line break": (
        'gate_settings: {policies: {"a\\nb": pass}}',
        f"gate_settings.policies.a\\nb: no endpoint class with a policy; those are {CLASSES}",
    ),
    "a time that no float holds": (
        f"gate_settings: {{hook_timeout: 1{'0' * 400}}}",
        "gate_settings.hook_timeout: expected a number of seconds, got int",
    ),
    "a number that Python does not read": (
        f"gate_settings: {{max_body_bytes: 1{'0' * 5000}}}",
        "line 1: this looks like int and is none; text takes quotes",
    ),
    "no time": ("gate_settings: {hook_timeout: 0}", "gate_settings.hook_timeout: expected more than 0 seconds"),
    "a time before now": (
        "gate_settings: {cancel_grace: -0.1}",
        "gate_settings.cancel_grace: expected a number of seconds, got -0.1",
    ),
    "a time without end": (
        "gate_settings: {body_timeout: .inf}",
        "gate_settings.body_timeout: expected a number of seconds, got inf",
    ),
    "a time that is no number": (
        "gate_settings: {shutdown_timeout: .nan}",
        "gate_settings.shutdown_timeout: expected a number of seconds, got nan",
    ),
    "a time in words": (
        "gate_settings: {hook_timeout: 5s}",
        "gate_settings.hook_timeout: expected a number of seconds, got '5s'",
    ),
    "a truth as a time": (
        "gate_settings: {hook_timeout: true}",
        "gate_settings.hook_timeout: expected a number of seconds, got True",
    ),
    "a truth as a size": (
        "gate_settings: {max_body_bytes: true}",
        "gate_settings.max_body_bytes: expected a whole number from 1, got True",
    ),
    "half a byte": (
        "gate_settings: {max_response_bytes: 0.5}",
        "gate_settings.max_response_bytes: expected a whole number from 1, got 0.5",
    ),
    "no byte": (
        "gate_settings: {moderation_buffer: 0}",
        "gate_settings.moderation_buffer: expected a whole number from 1, got 0",
    ),
    "a size in words": (
        "gate_settings: {max_json_values: 10MB}",
        "gate_settings.max_json_values: expected a whole number from 1, got '10MB'",
    ),
    "policies as text": (
        "gate_settings: {policies: pass}",
        "gate_settings.policies: expected names and words, got str",
    ),
    "a policy for what is inspected": (
        "gate_settings: {policies: {completion: pass}}",
        f"gate_settings.policies.completion: no endpoint class with a policy; those are {CLASSES}",
    ),
    "a policy of no kind": (
        "gate_settings: {policies: {files: allow}}",
        "gate_settings.policies.files: expected inspect or pass or deny, got 'allow'",
    ),
    "a policy that is a truth": (
        "gate_settings: {policies: {files: true}}",
        "gate_settings.policies.files: expected inspect or pass or deny, got True",
    ),
    "a path without a slash": (
        "gate_settings: {paths: {v2/ask: completion}}",
        f"gate_settings.paths.v2/ask: {PATH}",
    ),
    "a path with a slash too many": (
        "gate_settings: {paths: {/: pass}}",
        f"gate_settings.paths./: {PATH}",
    ),
    "a path that is a number": (
        "gate_settings: {paths: {2: completion}}",
        f"gate_settings.paths.2: {PATH}",
    ),
    **{
        f"a path that no request has: {path}": (
            f"gate_settings: {{paths: {{'{path}': completion}}}}",
            f"gate_settings.paths.{path}: {PATH}",
        )
        for path in (
            *("", "/", "//", "/a/", "/a//b", "/a/../b", "/..", "/./a", "/a b", "/a?b", "/a#b", "/a%20b", "/a;b"),
            *("/größe", "/{id}/ask", "/a/{}", "/{}", "/a{}/b", "https://h/a"),
        )
    },
    "a path to no call": (
        "gate_settings: {paths: {/v2/ask: chatting}}",
        "gate_settings.paths./v2/ask: expected a call type such as completion, or pass, got 'chatting'",
    ),
    "a path to a number": (
        "gate_settings: {paths: {/v2/ask: 2}}",
        "gate_settings.paths./v2/ask: expected a call type such as completion, or pass, got 2",
    ),
    # Models.
    "models by name": ("model_list: {m: n}", "model_list: must be a list of entries"),
    "no models": ("model_list:", "model_list: must be a list of entries"),
    "a model as text": ("model_list: [m]", "model_list[0]: must be a mapping with model_name and litellm_params"),
    "a model without a name": (
        "model_list: [{model_name: a, litellm_params: {model: a}}, {litellm_params: {model: a}}]",
        "model_list[1].model_name: must be the name that clients ask for",
    ),
    "a model of another provider": (
        "model_list: [{model_name: a, litellm_params: {model: a, timeout: -1}}]",
        "model_list[0].litellm_params.timeout: must be a number of seconds above 0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_file_is_one_line_with_its_place(name, configured):
    text, line = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        configured(text, {"SECRET": "sk-secret", "EMPTY": "", "LINE": "sk-secret\n"})
    told = str(caught.value)
    assert told.startswith("gate.yaml: ")
    assert "\n" not in told
    assert told == f"gate.yaml: {line}"


def test_models_are_checked_with_the_environment_they_will_run_in(configured):
    models = "model_list: [{model_name: a, litellm_params: {model: a}}]"
    assert len(configured(models).model_list) == 1
    with pytest.raises(ConfigError, match=r"^gate\.yaml: model_list\[0\]\.litellm_params\.api_base: "):
        configured(models, {"OPENAI_BASE_URL": "no url"})


def test_the_first_of_several_mistakes_is_told(configured):
    with pytest.raises(ConfigError, match=r"general_settings\.master_key: "):
        configured("general_settings: {master_key: 1, enforce_user_param: 1}\ngate_settings: {hook_timeout: x}")


def test_the_cause_of_a_failed_callback_is_kept(configured):
    """The traceback of what went wrong in the handler's file is there for who wants it."""
    Path("broken.py").write_text("handler = {}['none']")
    with pytest.raises(ConfigError, match=r"callbacks: broken\.handler: broken\.py line 1: KeyError") as caught:
        configured("litellm_settings: {callbacks: broken.handler}")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_path_that_is_no_file_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reason = {"nowhere.yaml": "No such file or directory", ".": "Is a directory"}[name]
    with pytest.raises(ConfigError) as caught:
        load_settings(name, {}, {})
    assert str(caught.value) == f"{name}: {reason}"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (5, "config: expected a path or a mapping, got int"),
        (b"gate.yaml", "config: expected a path or a mapping, got bytes"),
        (["gate.yaml"], "config: expected a path or a mapping, got list"),
        (True, "config: expected a path or a mapping, got bool"),
        ("a\0b", "a\\x00b: no path has such a character"),
        ("a\nb", "a\\nb: No such file or directory"),
        ("a" * 300, f"{'a' * 300}: File name too long"),
    ],
)
def test_what_is_no_path_is_one_line(config, line):
    with pytest.raises(ConfigError) as caught:
        load_settings(config, {}, {})
    assert str(caught.value) == line


WRONG_KEYWORDS: dict[str, tuple[dict[str, object], str]] = {
    "a misspelt name": ({"enforce_user": True}, "enforce_user: not a setting; did you mean enforce_user_param?"),
    "a name like no other": ({"xyz": True}, "xyz: not a setting"),
    "what a later version serves": ({"inspector": {}}, "inspector: not a setting"),
    "a wrong URL": ({"redis_url": "h"}, "redis_url: expected a URL such as redis://"),
    "a wrong value": ({"hook_timeout": None}, "hook_timeout: expected a number of seconds, got None"),
    "a wrong cache": ({"cache": {}}, "cache: expected a DualCache, got dict"),
    "a wrong callback": (
        {"callbacks": [Guard(), "nowhere.h"]},
        "callbacks[1]: nowhere.h: there is no module nowhere, ",
    ),
    "an unset variable": ({"master_key": "os.environ/KEY"}, "master_key: the environment variable KEY is not set"),
}


@pytest.mark.parametrize("name", WRONG_KEYWORDS)
def test_a_mistake_in_a_keyword_is_one_line(name):
    keywords, line = WRONG_KEYWORDS[name]
    with pytest.raises(ConfigError) as caught:
        load_settings(None, keywords, {})
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_keyword_is_not_laid_on_the_file(configured):
    with pytest.raises(ConfigError, match=r"^hook_timeout: "):
        configured("gate_settings: {}", hook_timeout=0)


def test_nothing_may_be_said_of_what_is_off_by_default():
    settings = load_settings(None, {"master_key": None, "custom_auth": None, "cache": None}, {})
    assert settings == Settings()


# The text of a file, the place of what is not known in it, and what may have been meant.
UNKNOWN = [
    ("general_settings: {mater_key: x}", "general_settings.mater_key", "master_key"),
    ("litellm_settings: {calbacks: [x]}", "litellm_settings.calbacks", "callbacks"),
    ("litellm_setings: {callbacks: x}", "litellm_setings", "litellm_settings"),
    ("enforce_user_param: true", "enforce_user_param", "general_settings.enforce_user_param"),
    ("gate_settings: {callbacks: x}", "gate_settings.callbacks", "litellm_settings.callbacks"),
    ("gate_settings: {cache: x}", "gate_settings.cache", None),
    ("general_settings: {hook_timeout: 3}", "general_settings.hook_timeout", "gate_settings.hook_timeout"),
    ("5: {A: b}", "5", None),
    ('"a\\nb": 1', "a\\nb", None),
    ("gate_settings: {7: b}", "gate_settings.7", None),
    ("litellm_settings: {cache_params: {type: local, hosst: h}}", "litellm_settings.cache_params.hosst", "host"),
    ("model_list: [{model_name: a, litellm_params: {model: a, x: 5}}]", "model_list[0].litellm_params.x", None),
    ("general_settings: {drop_params: true}", "general_settings.drop_params", None),
    (
        "model_list: [{model_name: a, litellm_params: {model: a, api_bas: h}}]",
        "model_list[0].litellm_params.api_bas",
        "api_base",
    ),
]


@pytest.mark.parametrize(("text", "place", "meant"), UNKNOWN)
def test_a_key_that_is_not_known_is_named_in_a_warning(text, place, meant, configured, warned):
    configured(text)
    hint = f"; did you mean {meant}?" if meant else ""
    assert warned() == [f"{place} is not a setting of the gate{hint}"]


def test_what_an_entry_reads_from_the_environment_is_read_as_its_place_needs_it(configured):
    """A number is a number, and a key that looks like one is text."""
    params = "{model: a, api_key: os.environ/N, timeout: os.environ/N}"
    settings = configured(f"model_list: [{{model_name: a, litellm_params: {params}}}]", {"N": "30"})
    found = settings.model_list[0]["litellm_params"]
    assert (found["timeout"], found["api_key"]) == (30, "30")
    assert type(found["timeout"]) is int


def test_a_mapping_includes_no_file():
    with pytest.raises(ConfigError, match=r"^include: only a file can include others$"):
        load_settings({"include": ["a.yaml"]}, {}, {})


def test_a_files_own_variables_are_read_in_that_file_alone(configured, monkeypatch):
    """They win over the environment's, which stays as it is."""
    monkeypatch.delenv("THE_KEY", raising=False)
    text = """
environment_variables: {THE_KEY: sk-own, SECONDS: 3, ENFORCE: true, COPY: os.environ/OTHER, NONE: os.environ/NOWHERE}
general_settings:
  master_key: os.environ/THE_KEY
  enforce_user_param: os.environ/ENFORCE
  enforced_params: os.environ/COPY
gate_settings: {hook_timeout: os.environ/SECONDS}
"""
    environ = {"THE_KEY": "sk-other", "OTHER": "tenant"}
    settings = configured(text, environ)
    assert (settings.master_key, settings.hook_timeout, settings.enforce_user_param) == ("sk-own", 3, True)
    assert settings.enforced_params == ("tenant",)
    assert environ == {"THE_KEY": "sk-other", "OTHER": "tenant"}
    assert "THE_KEY" not in os.environ
    with pytest.raises(ConfigError, match="SECONDS is not set"):
        configured(text, environ, cancel_grace="os.environ/SECONDS")


def test_a_gate_without_models_leaves_the_forwarder_alone():
    """Reading settings imports neither the forwarder nor its HTTP client."""
    script = (
        "import sys, types; from pathlib import Path; package = types.ModuleType('asgi_llm_gate')\n"
        "package.__path__ = [sys.argv[1]]; sys.modules['asgi_llm_gate'] = package\n"
        "from asgi_llm_gate.config import load_settings\n"
        "load_settings(None, {'enforce_user_param': True}, {})\n"
        "assert not [name for name in sys.modules if 'forwarder' in name or name == 'httpx']"
    )
    package = Path(sys.modules["asgi_llm_gate"].__file__).parent
    done = subprocess.run([sys.executable, "-c", script, package], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
