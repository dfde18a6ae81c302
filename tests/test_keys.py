"""The keys, users and teams of a configuration: who may call, and what hooks and limits know of the caller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import BaseModel
from starlette.authentication import SimpleUser

from asgi_llm_gate import CallHooks, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.auth import hash_key
from asgi_llm_gate.authentication import Authenticator
from asgi_llm_gate.config import load_settings
from tests.harness import CHAT, JSON, Request, Upstream, chat
from tests.test_batches import STORED, upload
from tests.websocket import REALTIME, RESPONSES, Script, WebSocket

pytestmark = pytest.mark.anyio

ADA, BOB, MASTER = "sk-ada", "bob-7", "sk-master"
KEYS = [
    {
        "api_key": ADA,
        "key_alias": "ada's",
        "user_id": "ada",
        "team_id": "blue",
        "max_parallel_requests": 1,
        "rpm_limit": 2,
        "tpm_limit": 3,
        "metadata": {"tags": ["a"], "model_rpm_limit": {"gpt-4o": 1}},
    },
    {"api_key_sha256": hash_key(BOB)},
]
USERS = {"ada": {"rpm_limit": 20, "metadata": {"floor": 2}}, "7": {"tpm_limit": 70}}
TEAMS = {"blue": {"max_parallel_requests": 10, "rpm_limit": 0, "tpm_limit": 30, "metadata": {"cost": 5}}}

SCOPE = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}


class Caller(CallHooks):
    """Notes who calls, and writes into what it is given."""

    def __init__(self):
        self.seen = []

    async def async_pre_call_hook(self, user_api_key_dict, data):
        self.seen.append(user_api_key_dict.model_dump())
        user_api_key_dict.metadata["spent"] = 1
        if user_api_key_dict.models is not None:
            user_api_key_dict.models.append("another")


async def caller(key=None, scope=None, **settings):
    return await Authenticator(load_settings(None, settings, {})).caller(SCOPE | (scope or {}), key)


def bearer(key, *more):
    return [*JSON, ("authorization", f"Bearer {key}"), *more]


OPENS = [
    ("a key", {"keys": KEYS}, ADA, 200),
    ("a key known by its hash", {"keys": KEYS}, BOB, 200),
    ("the master key", {"keys": KEYS, "master_key": MASTER}, MASTER, 200),
    ("a key beside the master key", {"keys": KEYS, "master_key": MASTER}, ADA, 200),
    ("the master key, where there is none", {"keys": KEYS}, MASTER, 401),
    ("no key", {"keys": KEYS}, None, 401),
    ("an empty key", {"keys": KEYS}, "", 401),
    ("more than a key", {"keys": KEYS}, ADA + "a", 401),
    ("less than a key", {"keys": KEYS}, ADA[:-1], 401),
    ("a key in capitals", {"keys": KEYS}, ADA.upper(), 401),
    ("the hash of a key", {"keys": KEYS}, hash_key(ADA), 401),
    ("the hash of the master key", {"keys": KEYS, "master_key": MASTER}, hash_key(MASTER), 401),
    ("what is not ASCII", {"keys": KEYS}, "sk-\u00fc", 401),
    ("no key, and an empty list", {"keys": []}, None, 200),
    ("no key, and only limits", {"users": USERS, "teams": TEAMS}, None, 200),
]


@pytest.mark.parametrize(("settings", "key", "status"), [row[1:] for row in OPENS], ids=[row[0] for row in OPENS])
async def test_which_key_opens_the_gate(settings, key, status):
    app, seen = Upstream(), Caller()
    request = Request(chat(), headers=JSON if key is None else bearer(key))
    response = await request.to(LLMGate(app, callbacks=[seen], **settings))
    assert (response.status, len(app.calls), len(seen.seen)) == (status, status == 200, status == 200)
    if status == 401:
        assert response.error()["code"] == "invalid_api_key"
        assert response.header("www-authenticate") == "Bearer"


async def test_anthropics_clients_are_told_in_their_envelope():
    gate = LLMGate(Upstream(), keys=KEYS)
    request = Request(chat(), "/v1/messages", headers=[*JSON, ("x-api-key", "sk-wrong")])
    response = await request.to(gate)
    assert (response.status, response.header("www-authenticate")) == (401, "Bearer")
    assert response.json()["error"] == {"type": "authentication_error", "message": "Incorrect API key"}
    assert (await Request(chat(), "/v1/messages", headers=[*JSON, ("x-api-key", ADA)]).to(gate)).status == 200


SOCKETS = {
    "a header": ({"headers": {"authorization": f"Bearer {ADA}"}}, True),
    "a browser's subprotocol": ({"subprotocols": ["realtime", f"openai-insecure-api-key.{ADA}"]}, True),
    "a wrong key in it": ({"subprotocols": ["realtime", "openai-insecure-api-key.sk-wrong"]}, False),
    "no key": ({}, False),
}


@pytest.mark.parametrize("policy", ["inspect", "pass"])
@pytest.mark.parametrize("path", [REALTIME, RESPONSES])
@pytest.mark.parametrize("name", SOCKETS)
async def test_which_key_opens_a_websocket(name, path, policy):
    """Also one that passes unseen."""
    connection, opens = SOCKETS[name]
    app = Script()
    gate = LLMGate(app, keys=KEYS, policies={"realtime": policy, "responses_ws": policy})
    socket = WebSocket(path, **connection)
    if opens:
        async with socket.open(gate):
            pass
    else:
        (message,) = await socket.to(gate)
        assert (message["type"], message["code"]) == ("websocket.close", 1008)
    assert len(app.scopes) == opens


async def test_a_websocket_that_passes_asks_for_no_key_where_there_is_none():
    app = Script()
    async with WebSocket(REALTIME).open(LLMGate(app, policies={"realtime": "pass"})):
        pass
    assert len(app.scopes) == 1


async def test_hooks_know_whose_key_it_is():
    """Each call has objects of its own: what hooks write is not there in the next."""
    seen = Caller()
    gate = LLMGate(Upstream(), callbacks=[seen], keys=KEYS, users=USERS, teams=TEAMS)
    for _ in range(2):
        await Request(chat(user="end"), headers=bearer(ADA)).to(gate)
    assert len(seen.seen) == 2
    known = {
        "api_key": hash_key(ADA),
        "token": hash_key(ADA),
        "key_alias": "ada's",
        "user_id": "ada",
        "team_id": "blue",
        "end_user_id": "end",
        "max_parallel_requests": 1,
        "rpm_limit": 2,
        "tpm_limit": 3,
        "user_rpm_limit": 20,
        "user_metadata": {"floor": 2},
        "team_max_parallel_requests": 10,
        "team_rpm_limit": 0,
        "team_tpm_limit": 30,
        "team_metadata": {"cost": 5},
    }
    for dump in seen.seen:
        assert dump.pop("metadata") == {"tags": ["a"], "model_rpm_limit": {"gpt-4o": 1}, "spent": 1}
        assert dump.pop("models") == ["another"]
        assert dump == known


async def test_a_key_may_say_nothing():
    found = await caller(BOB, keys=KEYS, users=USERS)
    digest = hash_key(BOB)
    assert found.model_dump() == {"api_key": digest, "token": digest, "models": [], "metadata": {}, "user_id": None}


async def test_metadata_is_the_calls_own_to_the_depth():
    settings = load_settings(None, {"keys": KEYS, "teams": TEAMS}, {})
    authenticator = Authenticator(settings)
    first = await authenticator.caller(SCOPE, ADA)
    first.metadata["tags"].append("b")
    first.team_metadata["cost"] = 6
    second = await authenticator.caller(SCOPE, ADA)
    assert (second.metadata["tags"], second.team_metadata) == (["a"], {"cost": 5})
    assert settings.keys[0]["metadata"]["tags"] == ["a"]


async def test_the_hosts_user_is_whose_key_says_nothing():
    user = {"user": SimpleUser("ada")}
    assert (await caller(BOB, user, keys=KEYS, users=USERS)).user_rpm_limit == 20
    assert (await caller(ADA, {"user": SimpleUser("eve")}, keys=KEYS)).user_id == "ada"


async def test_the_master_key_has_no_models_and_limits_of_its_own():
    found = await caller(MASTER, master_key=MASTER, keys=[{"api_key": ADA, "models": ["m"]}])
    assert (found.user_id, found.user_role, found.models, found.rpm_limit) == (
        "default_user_id",
        "proxy_admin",
        None,
        None,
    )


@pytest.mark.parametrize("key", [None, "whatever"])
async def test_limits_hold_for_the_hosts_user_without_any_key(key):
    found = await caller(key, {"user": SimpleUser("ada")}, users=USERS, teams=TEAMS)
    assert (found.user_id, found.user_rpm_limit, found.team_rpm_limit) == ("ada", 20, None)


class OfLiteLLM(BaseModel):
    """A caller as LiteLLM's own class makes one, which lets no attribute be set that it does not declare."""

    user_id: Any
    team_id: str
    team_rpm_limit: int


@pytest.mark.parametrize("kind", [UserAPIKeyAuth, OfLiteLLM])
async def test_limits_hold_for_whom_custom_auth_names(kind):
    """What it says itself counts; an id may be a number."""
    fields = {"user_id": 7, "team_id": "blue", "team_rpm_limit": 99}
    found = await caller(ADA, custom_auth=lambda request, api_key: kind(**fields), users=USERS, teams=TEAMS)
    limits = (found.user_tpm_limit, found.team_rpm_limit, found.team_tpm_limit)
    assert limits == (70, 99, 30)


async def test_custom_auth_goes_before_the_keys():
    settings = {"keys": KEYS, "master_key": MASTER}
    found = await caller("wrong", custom_auth=lambda request, api_key: UserAPIKeyAuth(user_id="u"), **settings)
    assert (found.user_id, found.rpm_limit) == ("u", None)


@pytest.mark.parametrize("kind", [UserAPIKeyAuth, SimpleNamespace])
async def test_a_key_that_custom_auth_hands_back_is_known_by_its_hash(kind):
    """Whatever it looks like: hooks, caches and logs are to name the caller by it."""

    class Theirs(kind):
        def model_copy(self):
            return Theirs(**vars(self))

    found = await caller(BOB, custom_auth=lambda request, api_key: Theirs(api_key=api_key, token="own", user_id="u"))
    assert (found.api_key, found.token, found.user_id) == (hash_key(BOB), "own", "u")


async def test_metadata_of_the_call_names_the_key_by_its_hash():
    class Metadata(CallHooks):
        async def async_pre_call_hook(self, data):
            self.seen = data["metadata"]

    hook = Metadata()
    await Request(chat(), headers=bearer(ADA)).to(LLMGate(Upstream(), callbacks=[hook], keys=KEYS))
    assert hook.seen["user_api_key"] == hash_key(ADA)
    assert (hook.seen["user_api_key_alias"], hook.seen["user_api_key_team_id"]) == ("ada's", "blue")
    assert ADA not in str({**hook.seen, "user_api_key_auth": ""})


async def test_without_keys_a_call_is_authenticated_as_before():
    """Nothing is asked, and the key alone names the caller."""
    authenticator = Authenticator(load_settings(None, {}, {}))
    assert (authenticator.required, authenticator.limits_models) == (False, False)
    found = await authenticator.caller(SCOPE, ADA)
    assert found.model_dump() == {"api_key": hash_key(ADA), "token": hash_key(ADA), "user_id": None, "metadata": {}}


async def test_a_batch_row_is_the_callers_own():
    """The calls in a file have its limits and its key."""
    seen = Caller()
    line = orjson.dumps({"custom_id": "1", "method": "POST", "url": CHAT, "body": orjson.loads(chat())})
    request = upload(line)
    request.scope["headers"] = [*request.scope["headers"], (b"authorization", f"Bearer {ADA}".encode())]
    response = await request.to(LLMGate(Upstream(STORED), callbacks=[seen], keys=KEYS))
    assert response.status == 200
    assert [dump["rpm_limit"] for dump in seen.seen] == [2, 2]
