"""Who is calling: LiteLLM's `UserAPIKeyAuth`, from `custom_auth`, the master key, the host's user or the key's hash."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
from types import SimpleNamespace

import anyio
import pytest
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser
from starlette.exceptions import HTTPException

from asgi_llm_gate import LLMGate, UserAPIKeyAuth
from asgi_llm_gate.auth import hash_key, presented_key
from asgi_llm_gate.authentication import Authenticator
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.settings import Settings
from tests.harness import JSON, Request, Upstream

pytestmark = pytest.mark.anyio

KEY = "sk-secret"
HASH = hashlib.sha256(KEY.encode()).hexdigest()

SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}


async def asked(custom_auth=None, key=KEY, master_key=None, **scope):
    return await Authenticator(Settings(custom_auth=custom_auth, master_key=master_key)).caller(SCOPE | scope, key)


PRESENTED = [
    ("none", {}, None),
    ("a bearer", {"authorization": "Bearer sk-1"}, "sk-1"),
    ("any case", {"authorization": "bEARER sk-1"}, "sk-1"),
    ("more space", {"authorization": "  Bearer   sk-1 "}, "sk-1"),
    ("no scheme", {"authorization": "sk-1"}, "sk-1"),
    ("another scheme", {"authorization": "Basic abc"}, "Basic abc"),
    ("an empty header", {"authorization": "", "api-key": "sk-1"}, "sk-1"),
    ("Azure's", {"api-key": "sk-1"}, "sk-1"),
    ("Anthropic's", {"x-api-key": "sk-1"}, "sk-1"),
    ("LiteLLM's first", {"authorization": "Bearer sk-1", "x-litellm-api-key": "Bearer sk-2"}, "sk-2"),
    ("authorization before Azure's", {"api-key": "sk-2", "authorization": "Bearer sk-1"}, "sk-1"),
    ("what is not ASCII", {"authorization": "Bearer \u00fc"}, "\u00fc"),
]


@pytest.mark.parametrize(("headers", "key"), [row[1:] for row in PRESENTED], ids=[row[0] for row in PRESENTED])
def test_where_clients_put_a_key(headers, key):
    assert presented_key({name.encode(): value.encode("latin-1") for name, value in headers.items()}) == key


def test_a_caller_has_every_attribute():
    """A handler asks for any of LiteLLM's hundred fields: what is not set is None, and `metadata` is a dict."""
    caller = UserAPIKeyAuth(user_id="u")
    assert (caller.user_id, caller.team_id, caller.rpm_limit, caller.whatever) == ("u", None, None, None)
    assert caller.metadata == {}
    assert caller.get("user_id") == "u"
    assert caller.get("team_id") is None
    assert caller.get("team_id", "t") == "t"
    assert caller.model_dump(exclude_none=True) == {"user_id": "u", "metadata": {}, "token": None}
    assert not hasattr(caller, "__fspath__")
    assert UserAPIKeyAuth(metadata=None).metadata == {}
    assert UserAPIKeyAuth().metadata is not UserAPIKeyAuth().metadata


def test_attributes_can_be_set():
    caller = UserAPIKeyAuth()
    caller.team_id = "t"
    caller.metadata["a"] = 1
    assert caller.model_dump()["team_id"] == "t"
    assert caller.get("metadata") == {"a": 1}


def test_a_key_in_clear_is_hashed_at_once():
    caller = UserAPIKeyAuth(api_key=KEY)
    assert caller.api_key == caller.token == HASH == hash_key(KEY)
    assert UserAPIKeyAuth(api_key=HASH).api_key == HASH
    assert UserAPIKeyAuth(api_key=None).api_key is None
    assert UserAPIKeyAuth(api_key=KEY, token="own").token == "own"


def test_the_text_of_a_caller_tells_no_key():
    shown = repr(UserAPIKeyAuth(api_key=KEY, user_id="u"))
    assert shown == "UserAPIKeyAuth(user_id='u', metadata={})"
    assert HASH not in shown


def test_copies():
    caller = UserAPIKeyAuth(api_key=KEY, user_id="u", metadata={"a": 1})
    changed = caller.model_copy(update={"user_id": "v"}, deep=False)
    assert (changed.user_id, changed.api_key, caller.user_id) == ("v", HASH, "u")
    for twin in (caller.model_copy(), copy.copy(caller), copy.deepcopy(caller), pickle.loads(pickle.dumps(caller))):
        assert twin is not caller
        assert twin.model_dump() == caller.model_dump()


async def test_without_keys_everybody_may_call():
    caller = await asked(key=None)
    assert (caller.api_key, caller.user_id) == (None, None)
    assert (await asked(key="")).api_key is None
    assert (await asked()).api_key == HASH
    assert (await asked(key="not-sk")).api_key == hash_key("not-sk")


async def test_the_master_key():
    caller = await asked(master_key=KEY)
    assert (caller.api_key, caller.user_id, caller.user_role) == (HASH, "default_user_id", "proxy_admin")


@pytest.mark.parametrize("key", [None, "", "sk", "sk-secret2", "SK-SECRET", "s\u00fc"], ids=repr)
async def test_without_the_master_key_it_is_401(key):
    with pytest.raises(GateError) as caught:
        await asked(key=key, master_key=KEY)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
    assert error.headers == {"www-authenticate": "Bearer"}
    assert KEY not in error.message


async def test_custom_auth_is_called_as_litellm_calls_it():
    """With the request and the key; a plain function will do."""
    seen = []

    def plain(request, api_key):
        seen.append((request.headers["x-tenant"], request.url.path, api_key))
        return UserAPIKeyAuth(api_key=api_key, user_id="u")

    async def awaited(request, api_key):
        return plain(request, api_key)

    headers = [(b"x-tenant", b"t")]
    for function in (plain, awaited):
        assert (await asked(function, headers=headers)).user_id == "u"
    await asked(plain, key=None, headers=headers)
    path = "/v1/chat/completions"
    assert seen == [("t", path, KEY), ("t", path, KEY), ("t", path, "")]


async def test_custom_auth_goes_before_the_master_key():
    caller = await asked(lambda request, api_key: UserAPIKeyAuth(user_id="u"), key="wrong", master_key=KEY)
    assert caller.user_id == "u"


async def test_custom_auth_may_return_a_key():
    assert (await asked(lambda request, api_key: "sk-other")).api_key == hash_key("sk-other")


async def test_each_call_gets_a_caller_of_its_own():
    """A function may keep one object for all calls of a key; what one call sets must not be seen by the next."""
    kept = UserAPIKeyAuth(user_id="u")
    first = await asked(lambda request, api_key: kept)
    first.end_user_id = "e"
    assert kept.end_user_id is None


async def test_a_caller_of_litellms_own_class_will_do():
    class Theirs(SimpleNamespace):
        def model_copy(self):
            return Theirs(**vars(self))

    theirs = Theirs(user_id="u")
    caller = await asked(lambda request, api_key: theirs)
    assert caller is not theirs
    assert caller.user_id == "u"


@pytest.mark.parametrize(
    "answer",
    [None, False, True, 1, {}, {"user_id": "u"}, object()],
    ids=lambda answer: "object" if type(answer) is object else repr(answer),
)
async def test_what_names_no_caller_is_401(answer):
    with pytest.raises(GateError) as caught:
        await asked(lambda request, api_key: answer)
    assert (caught.value.status_code, caught.value.message) == (401, "Authentication failed")


async def test_what_custom_auth_raises_is_401_and_tells_only_the_log(caplog):
    def fails(request, api_key):
        raise ValueError("no table")

    with pytest.raises(GateError) as caught:
        await asked(fails)
    assert (caught.value.status_code, caught.value.message) == (401, "Authentication failed")
    assert caplog.messages == ["custom_auth failed"]
    assert "no table" in caplog.text


@pytest.mark.virtual_time
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_custom_auth_that_hangs_is_cancelled_and_lets_nobody_in(path, caplog):
    """After `hook_timeout` it is 503, on calls and on what passes for who has a key: clients may try again."""
    cancelled = []

    async def hangs(request, api_key):
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(api_key)
            raise

    upstream = Upstream()
    gate = LLMGate(upstream, custom_auth=hangs, policies={"files": "pass"}, hook_timeout=5)
    response = await Request(b"{}", path=path, headers=[*JSON, ("api-key", KEY)]).to(gate)
    assert (response.status, response.error()["code"]) == (503, "authentication_unavailable")
    assert (cancelled, upstream.calls) == ([KEY], [])
    assert caplog.messages == ["custom_auth took more than 5 seconds"]


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key", "x-litellm-api-key"])
@pytest.mark.parametrize("scheme", ["", "Bearer "])
@pytest.mark.parametrize(("key", "status"), [(KEY, 200), (KEY + "2", 401), (KEY[:-1], 401), ("", 401)])
async def test_each_header_opens_the_gate_with_the_master_key_alone(name, scheme, key, status):
    upstream = Upstream()
    request = Request(b'{"model": "m"}', headers=[*JSON, (name, scheme + key)])
    response = await request.to(LLMGate(upstream, master_key=KEY))
    assert (response.status, len(upstream.calls)) == (status, int(status == 200))
    if status == 401:
        assert response.error()["type"] == "authentication_error"


async def test_the_master_key_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *keys: compared.append(keys))
    with pytest.raises(GateError):
        await asked(master_key=KEY)
    assert compared == [(HASH, HASH)]


async def test_what_custom_auth_means_to_raise_is_raised():
    def refuses(request, api_key):
        raise HTTPException(403, "not today")

    with pytest.raises(HTTPException) as caught:
        await asked(refuses)
    assert caught.value.status_code == 403


class Named(BaseUser):
    """A user of Starlette's that has a name and, like many, no identity."""

    @property
    def is_authenticated(self):
        return True

    @property
    def display_name(self):
        return "Ada"


class Nameless(Named):
    display_name = ""


def django_user(**fields):
    return SimpleNamespace(**{"is_authenticated": True, "pk": 7, "username": "ada", **fields})


HOST_USERS = [
    ("none", None, None),
    ("nobody", UnauthenticatedUser(), None),
    ("Starlette's", SimpleUser("ada"), "ada"),
    ("without identity", Named(), "Ada"),
    ("without any name", Nameless(), None),
    ("Django's", django_user(), "7"),
    ("Django's, not saved", django_user(pk=None), "ada"),
    ("Django's, anonymous", django_user(is_authenticated=False), None),
    ("something else", object(), None),
]


@pytest.mark.parametrize(("user", "user_id"), [row[1:] for row in HOST_USERS], ids=[row[0] for row in HOST_USERS])
async def test_the_hosts_own_user_is_the_caller(user, user_id):
    assert (await asked(user=user)).user_id == user_id
    assert (await asked(user=user)).api_key == HASH
