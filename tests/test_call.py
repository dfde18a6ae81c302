"""One dict goes through a call: the client's fields, and beside them what handlers look for and no app is sent."""

from __future__ import annotations

import copy

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_llm_gate import UserAPIKeyAuth
from asgi_llm_gate.call import OWN_KEYS, CallData
from asgi_llm_gate.head import Head

# A loaded machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SCOPE = {
    "type": "http",
    "method": "post",
    "scheme": "https",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "client": ("192.0.2.1", 1234),
    "headers": [
        (b"Host", b"llm.example"),
        (b"User-Agent", b"curl/8"),
        (b"authorization", b"Bearer sk-1"),
        (b"api-key", b"sk-2"),
        (b"x-api-key", b"sk-3"),
        (b"x-litellm-api-key", b"sk-4"),
        (b"cookie", b"session=5"),
        (b"proxy-authorization", b"Basic 6"),
        (b"x-tenant", b"\xfc"),
    ],
}
CALLER = UserAPIKeyAuth(api_key="sk-1", user_id="u", team_id="t", key_alias="k", end_user_id="e", metadata={"plan": 1})


def equipped(scope=SCOPE, **body):
    raw = orjson.dumps(body)
    call = CallData(orjson.loads(raw), raw)
    call.equip(scope, Head.of(scope), "id-1", CALLER)
    return call


def sent(call, dropped=()):
    return orjson.loads(next(call.for_app(dropped).messages)["body"])


def test_what_handlers_find_beside_the_clients_fields():
    data = equipped(model="m", metadata={"tag": "a"}).data
    assert data["model"] == "m"
    assert data["litellm_call_id"] == "id-1"
    assert data["litellm_metadata"] == {}
    headers = {"host": "llm.example", "user-agent": "curl/8", "x-tenant": "\u00fc"}
    assert data["proxy_server_request"] == {
        "url": "https://llm.example/v1/chat/completions",
        "method": "POST",
        "headers": headers,
        "body": {"model": "m", "metadata": {"tag": "a"}},
        "via": "http",
    }
    assert data["metadata"] == {
        "tag": "a",
        "requester_metadata": {"tag": "a"},
        "headers": headers,
        "endpoint": "https://llm.example/v1/chat/completions",
        "user_agent": "curl/8",
        "requester_ip_address": "192.0.2.1",
        "user_api_key": CALLER.api_key,
        "user_api_key_hash": CALLER.api_key,
        "user_api_key_alias": "k",
        "user_api_key_user_id": "u",
        "user_api_key_team_id": "t",
        "user_api_key_end_user_id": "e",
        "user_api_key_metadata": {"plan": 1},
        "user_api_key_auth": CALLER,
    }


def test_credentials_stand_in_the_secret_fields_only():
    data = equipped(model="m").data
    assert data["secret_fields"]["raw_headers"]["authorization"] == "Bearer sk-1"
    del data["secret_fields"]
    shown = repr(data)
    for secret in ("sk-1", "sk-2", "sk-3", "sk-4", "session=5", "Basic 6"):
        assert secret not in shown


def test_the_url_has_its_query():
    data = equipped({**SCOPE, "query_string": b"api-version=1", "scheme": "http"}, model="m").data
    assert data["proxy_server_request"]["url"] == "http://llm.example/v1/chat/completions?api-version=1"


@pytest.mark.parametrize("client", [None, ()], ids=repr)
def test_a_scope_may_lack_what_asgi_makes_optional(client):
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "client": client}
    data = equipped(scope, model="m").data
    assert data["metadata"]["requester_ip_address"] is None
    assert data["proxy_server_request"]["url"] == "http:///x"


@pytest.mark.parametrize("name", [*sorted(OWN_KEYS), "metadata"])
def test_a_client_cannot_set_the_gates_keys(name):
    lie = {"raw_headers": {"authorization": "x"}, "user_api_key_user_id": "admin", "user_api_key": "x"}
    call = equipped(model="m", **{name: lie})
    if name == "metadata":
        assert call.data["metadata"]["user_api_key_user_id"] == "u"
    else:
        assert call.data.get(name) != lie
        assert CallData({"model": "m", name: lie}).data == {"model": "m"}
        assert name not in sent(call)


def test_no_user_api_key_name_of_a_client_is_taken_for_the_gates():
    metadata = equipped(metadata={"user_api_key_spend": 0, "user_api_keys": 1, "tag": 2}).data["metadata"]
    assert "user_api_key_spend" not in metadata
    assert "user_api_keys" not in metadata
    assert metadata["tag"] == 2


@pytest.mark.parametrize("metadata", [None, "text", 1, [1], {}, {"a": {"b": 1}}, {"user_api_key": "x"}], ids=repr)
def test_the_clients_metadata_is_forwarded_as_sent(metadata):
    call = equipped(model="m", metadata=metadata)
    call.data["metadata"]["seen"] = True
    assert sent(call) == {"model": "m", "metadata": metadata}
    call.data["metadata"] = {"of a hook's": "own"}
    assert sent(call) == {"model": "m", "metadata": metadata}
    call.data["metadata"].clear()
    assert sent(call) == {"model": "m", "metadata": metadata}
    del call.data["metadata"]
    assert sent(call) == {"model": "m", "metadata": metadata}
    call.data["metadata"] = "no mapping"
    assert sent(call) == {"model": "m", "metadata": metadata}


def test_hooks_see_a_copy_of_nested_metadata():
    call = equipped(metadata={"a": {"b": 1}})
    call.data["metadata"]["a"]["b"] = 2
    assert sent(call) == {"metadata": {"a": {"b": 1}}}


def test_a_hook_can_change_the_metadata_that_goes_on():
    call = equipped(model="m")
    assert sent(call) == {"model": "m"}
    call.data["metadata"]["requester_metadata"] = {"tenant": "t"}
    assert sent(call) == {"model": "m", "metadata": {"tenant": "t"}}


def test_state_between_hooks_is_not_forwarded():
    call = equipped(model="m")
    call.data["litellm_metadata"]["score"] = 1
    call.data["litellm_logging_obj"] = object()
    assert sent(call) == {"model": "m"}


def test_new_data_is_taken_over_in_the_same_dict():
    call = equipped(model="m", metadata={"a": 1}, temperature=1)
    data, call_id = call.data, call.data["litellm_call_id"]
    call.replace({"model": "n"})
    assert call.data is data
    assert (data["model"], data["litellm_call_id"]) == ("n", call_id)
    assert sent(call) == {"model": "n", "metadata": {"a": 1}}
    call.replace(data)
    assert sent(call) == {"model": "n", "metadata": {"a": 1}}
    call.replace({**data, "model": "o"})
    assert sent(call) == {"model": "o", "metadata": {"a": 1}}


def test_what_the_client_asked_stays_as_it_came():
    call = equipped(model="m", stream=True)
    call.data["model"] = "n"
    call.data["proxy_server_request"]["body"].clear()
    call.replace({})
    assert call.asked == {"model": "m", "stream": True}


def test_before_there_is_a_body_nothing_is_asked():
    assert CallData({}).asked == CallData({}).headers == {}


def test_the_clients_headers_are_at_hand_without_its_secrets():
    assert equipped(model="m").headers == {"host": "llm.example", "user-agent": "curl/8", "x-tenant": "\u00fc"}


def test_fields_can_be_left_behind():
    assert sent(equipped(model="m", user="u"), ["user", "safety_identifier"]) == {"model": "m"}
    plain = CallData({"model": "m", "user": "u"})
    assert sent(plain, ["user"]) == {"model": "m"}
    assert sent(plain) == plain.data == {"model": "m", "user": "u"}


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a", "b"}, "\ud800"], ids=["object", "int key", "set", "surrogate"]
)
def test_what_is_not_json_is_a_type_error(value):
    call = equipped(model="m")
    call.data["x"] = value
    with pytest.raises(TypeError):
        call.for_app()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
BODIES = st.dictionaries(st.sampled_from(["model", "metadata", "x", *sorted(OWN_KEYS)]), JSON)


@calm
@given(BODIES)
def test_the_app_gets_the_clients_fields_less_the_gates(body):
    expected = {name: value for name, value in body.items() if name not in OWN_KEYS}
    bare = CallData(copy.deepcopy(body))
    assert sent(bare) == expected
    assert sent(equipped(**body)) == expected
