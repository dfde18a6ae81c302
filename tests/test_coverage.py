"""What `check` says a configuration covers."""

from __future__ import annotations

import pytest

from asgi_llm_gate import coverage
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.config import ConfigError, load_settings
from asgi_llm_gate.endpoints import ENDPOINTS, WEBSOCKETS


class Before:
    def async_pre_call_hook(self, data):
        """Look on."""


class Beside:
    def async_pre_call_hook(self, data):
        """Look on."""

    def async_moderation_hook(self, data):
        """Look on."""


def found(**keywords):
    return {row.call_type: row for row in coverage.rows(load_settings(None, keywords))}


def test_every_endpoint_of_the_table_is_in_a_row():
    """No path that the gate knows is left out."""
    paths = [path.removesuffix(" (WebSocket)") for row in coverage.rows(load_settings({}, {})) for path in row.paths]
    assert sorted(paths) == sorted(endpoint.suffix for endpoint in (*ENDPOINTS, *WEBSOCKETS))


def test_hooks_are_named_by_stage_in_their_order():
    """Each stage has the callbacks that define it, in the order in which they run."""
    hooks = found(callbacks=[Beside(), Before()])["embeddings"].hooks
    assert hooks["async_pre_call_hook"] == ("Beside", "Before")
    assert hooks["async_moderation_hook"] == ("Beside",)
    assert set(hooks) < set(STAGES)


def test_what_is_not_inspected_has_its_policy():
    """An endpoint class that no hook looks into is denied, or passes where the settings say so; some have a choice."""
    rows = found(policies={"batches": "pass", "files": "deny"})
    assert (rows["batches"].policy, rows["invocations"].policy, rows["files"].policy) == ("pass", "deny", "deny")
    assert rows["completion"].policy == rows["uploads"].policy == "inspect"
    assert found(policies={"files": "inspect"})["files"].policy == "inspect"


def test_websockets_are_inspected_unless_their_policy_says_otherwise():
    """Of the hooks those that look at whole answers and at chunks do not run there."""

    class All:
        def async_pre_call_hook(self, data):
            """Look on."""

        def async_post_call_success_hook(self, response):
            """Look on."""

        def async_post_call_streaming_hook(self, response):
            """Look on."""

    settings = load_settings(None, {"callbacks": [All()], "policies": {"responses_ws": "deny", "realtime": "inspect"}})
    rows = {row.paths[0]: row for row in coverage.rows(settings) if row.call_type in {"realtime", "responses_ws"}}
    assert {path: row.policy for path, row in rows.items()} == {
        "/realtime/client_secrets": "inspect",
        "/realtime/calls": "deny",
        "/realtime (WebSocket)": "inspect",
        "/responses (WebSocket)": "deny",
    }
    hooks = {method for method, names in rows["/realtime (WebSocket)"].hooks.items() if names}
    assert hooks == {"async_pre_call_hook", "async_post_call_streaming_hook"}


def test_own_paths_stand_with_their_call_type():
    """An app's own paths are in the row of the calls they carry; what is no LLM call has a row for itself."""
    rows = found(paths={"/ask": "completion", "/files": "pass"})
    assert rows["completion"].paths == ("/chat/completions", "/ask")
    assert (rows[""].paths, rows[""].policy) == (("/files",), "pass")


def test_the_user_is_what_the_settings_call_it():
    """A row names the fields that say who the user is, and whether the app gets them."""
    assert found()["completion"].user == ()
    rows = found(enforce_user_param=True, user_params=["user", "safety_identifier"])
    assert rows["completion"].user == ("user", "safety_identifier")
    assert rows["completion"].forwards_user
    assert not rows["moderation"].forwards_user
    assert found(enforce_user_param=True, forward_user="always")["moderation"].forwards_user


def test_anthropics_user_has_its_own_name():
    """It is `metadata.user_id` whatever the settings call the others', also on an app's own path."""
    rows = found(enforce_user_param=True, user_params=["safety_identifier"], paths={"/ask": "anthropic_messages"})
    assert rows["anthropic_messages"].user == ("metadata.user_id",)
    assert rows["anthropic_messages"].paths == ("/v1/messages", "/ask")
    assert rows["anthropic_messages"].forwards_user
    assert not rows["anthropic_messages_count_tokens"].forwards_user


def test_the_report_is_a_table():
    """The columns of the text stand under their titles, and what is out of the ordinary is said below."""
    settings = load_settings(
        None,
        {
            "callbacks": [Before(), Beside()],
            "enforce_user_param": True,
            "enforced_params": ["metadata.team"],
            "paths": {"/feedback": "pass"},
        },
    )
    lines = coverage.report(settings).splitlines()
    column = lines[0].index("BESIDE")
    assert [line[column:].split()[0] for line in lines[1:6]] == ["Beside"] * 5
    assert lines[4].endswith("user (not forwarded)")
    assert any(line.split() == ["-", "pass", "/feedback"] for line in lines)
    assert "Every inspected call must carry metadata.team." in lines
    assert "Beside the call: nothing is sent to the client before these hooks' verdict." in lines


MASTER, KEYS = {"master_key": "sk-m"}, {"keys": [{"api_key": "sk-a", "models": "gpt-*"}, {"api_key": "sk-b"}]}
LIMITED = "1 of the keys may use certain models only."
WHO_MAY_CALL = [
    ({}, ["No call needs a key."]),
    (MASTER, ["Every call needs the master key."]),
    ({"keys": [{"api_key": "sk-a"}]}, ["Every call needs the one key."]),
    (KEYS, ["Every call needs one of 2 keys.", "1 of the keys may use certain models only."]),
    (
        KEYS | MASTER,
        ["Every call needs one of 2 keys or the master key.", "1 of the keys may use certain models only."],
    ),
    ({"custom_auth": len}, ["custom_auth decides who may call."]),
    (KEYS | {"custom_auth": len}, ["custom_auth decides who may call, in place of the configured keys."]),
]


@pytest.mark.parametrize(("settings", "lines"), WHO_MAY_CALL)
def test_the_report_says_who_may_call(settings, lines):
    """No key is in it, nor its hash."""
    report = coverage.report(load_settings(None, settings))
    assert report.splitlines()[-len(lines) - 1 : -1] == lines
    assert "sk-" not in report


class Counts(Before):
    shared_state = True


DIGEST = "0" * 64
LIMITS = {
    "a key's": ({"keys": [{"api_key_sha256": DIGEST, "rpm_limit": 1}]}, "keys"),
    "a key's for a model": (
        {"keys": [{"api_key_sha256": DIGEST, "metadata": {"model_tpm_limit": {"m": 1}}}]},
        "keys",
    ),
    "a user's and a team's": (
        {"users": {"ada": {"max_parallel_requests": 1}}, "teams": {"red": {"tpm_limit": 0}}},
        "users and teams",
    ),
}


@pytest.mark.parametrize(("limits", "whose"), LIMITS.values(), ids=LIMITS)
def test_limits_that_nothing_counts_are_told(caplog, limits, whose):
    """In the log, in what `check` prints, and as a reason not to start where `strict` is set."""
    told = f"the limits of {whose} hold nobody back: callbacks has no parallel_request_limiter"
    settings = load_settings(None, {"callbacks": [Before()], **limits})
    assert [record.getMessage() for record in caplog.records] == [told]
    assert f"The{told[3:]}." in coverage.report(settings)
    with pytest.raises(ConfigError, match=whose):
        load_settings(None, {"callbacks": [Before()], "strict": True, **limits})


@pytest.mark.parametrize("counting", ["parallel_request_limiter", Counts()], ids=["the limiter", "another"])
def test_limits_that_are_counted_are_not(caplog, counting):
    """By the limiter that ships, or by a callback that says that it counts."""
    settings = load_settings(None, {"callbacks": [counting], **LIMITS["a key's"][0]})
    assert caplog.records == []
    assert "hold nobody back" not in coverage.report(settings)


def test_keys_without_limits_need_no_limiter(caplog):
    """They only say who calls."""
    load_settings(None, {"keys": [{"api_key_sha256": DIGEST, "models": ["m"]}], "users": {"ada": {"metadata": {}}}})
    assert caplog.records == []
