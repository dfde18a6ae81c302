"""Which connections a gate takes for its own, whom it lets in, and what it says to the others."""

from __future__ import annotations

import hashlib

import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, Forwarder, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.config import ConfigError
from tests.harness import JSON, Request, Upstream, answer, chat

pytestmark = pytest.mark.anyio

KEY = "sk-of-the-gate"
BEARER = [*JSON, ("authorization", f"Bearer {KEY}")]
FILES = "/v1/files"
DENIED = {"realtime": "deny", "responses_ws": "deny"}


class Recorder:
    """An app that notes the very objects it was called with."""

    def __init__(self):
        self.calls = []

    async def __call__(self, *connection):
        self.calls.append(connection)


class Witness(CallHooks):
    def __init__(self):
        self.calls = []
        self.failures = []

    async def async_pre_call_hook(self, user_api_key_dict, data):
        self.calls.append((user_api_key_dict, data))

    async def async_post_call_failure_hook(self, original_exception):
        self.failures.append(original_exception)


async def receive():
    return {"type": "websocket.connect"}


def websocket(path, **scope):
    return {"type": "websocket", "path": path, "root_path": "", "headers": [], "query_string": b"", **scope}


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan"},
        {"type": "whatever is next"},
        {"type": "http", "path": "/health", "method": "GET", "headers": []},
        {"type": "http", "path": "/v1/orders", "method": "POST", "headers": [], "root_path": ""},
        websocket("/chat"),
    ],
    ids=lambda scope: f"{scope['type']} {scope.get('path', '')}",
)
async def test_what_is_no_llm_call_passes_as_the_same_objects(scope):
    app, request = Recorder(), Request()
    await LLMGate(app, callbacks=[Witness()], master_key=KEY)(scope, request.receive, request.send)
    ((got, receives, sends),) = app.calls
    assert got is scope
    assert receives == request.receive
    assert sends == request.send


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/responses", "/realtime"])
@pytest.mark.parametrize("extensions", [None, {}], ids=repr)
async def test_a_websocket_no_hook_looks_into_is_closed_before_it_opens(path, extensions):
    app, sent = Recorder(), []

    async def send(message):
        sent.append(message)

    scope = websocket(path) if extensions is None else websocket(path, extensions=extensions)
    await LLMGate(app, policies=DENIED)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert sent[0]["code"] == 1008
    assert len(sent[0]["reason"].encode()) <= 123
    assert app.calls == []


@pytest.mark.parametrize(("path", "status"), [("/v1/realtime", 403), ("/v1//realtime", 400)])
async def test_a_websocket_is_refused_in_the_envelope_where_the_server_can_say_it(path, status):
    app, sent = Recorder(), []

    async def send(message):
        sent.append(message)

    extensions = {"websocket.http.response": {}}
    await LLMGate(app, policies=DENIED)(websocket(path, extensions=extensions), receive, send)
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert body["type"] == "websocket.http.response.body"
    assert orjson.loads(body["body"])["error"]["type"] in {"permission_error", "invalid_request_error"}
    assert app.calls == []


async def test_a_websocket_passes_by_its_policy():
    app, request = Recorder(), Request()
    await LLMGate(app, policies={"realtime": "pass"})(websocket("/v1/realtime"), request.receive, request.send)
    assert len(app.calls) == 1


async def test_an_endpoint_no_hook_looks_into_is_refused_and_reported():
    witness, upstream = Witness(), Upstream()
    response = await Request(b"{}", path="/v1/invocations").to(LLMGate(upstream, callbacks=[witness]))
    assert (response.status, response.error()["code"]) == (403, "endpoint_not_inspected")
    assert "invocations" in response.error()["message"]
    assert [exc.code for exc in witness.failures] == ["endpoint_not_inspected"]
    assert upstream.calls == []


async def test_an_endpoint_no_hook_looks_into_passes_by_its_policy():
    upstream = Upstream()
    gate = LLMGate(upstream, callbacks=[Witness()], policies={"files": "pass"})
    assert (await Request(b"not JSON", path=FILES).to(gate)).status == 200
    assert upstream.calls[0][1] == b"not JSON"


@pytest.mark.parametrize("path", ["/v1//chat/completions", "/v1/chat/completions;x", "/v1/chat/../chat/completions"])
async def test_an_odd_path_is_refused(path):
    app = Recorder()
    response = await Request(chat(), path=path).to(LLMGate(app))
    assert (response.status, response.error()["code"]) == (400, "invalid_path")
    assert app.calls == []


# A request and whether the master key is asked for where the app is the host's own, and where it is an upstream.
GUARDED = [
    ("a call", {"body": chat()}, True, True),
    ("a policy's call", {"body": b"x", "path": FILES}, True, True),
    ("a listing", {"method": "GET", "path": "/v1/models"}, False, True),
    ("a page", {"method": "GET", "path": "/health"}, False, True),
]


@pytest.mark.parametrize("upstream", [False, True], ids=["host", "upstream"])
@pytest.mark.parametrize(
    ("request_", "of_a_host", "of_an_upstream"), [row[1:] for row in GUARDED], ids=[row[0] for row in GUARDED]
)
async def test_where_the_master_key_is_asked_for(request_, of_a_host, of_an_upstream, upstream, monkeypatch):
    """A host app has public pages of its own; a server of models has none."""
    forwarded = Upstream()

    async def forward(self, *connection):
        await forwarded(*connection)

    monkeypatch.setattr(Forwarder, "__call__", forward)
    app = Forwarder("http://127.0.0.1:9/v1", api_key="sk-of-the-upstream") if upstream else forwarded
    gate = LLMGate(app, master_key=KEY, policies={"files": "pass"})
    asked = of_an_upstream if upstream else of_a_host
    response = await Request(headers=JSON, **request_).to(gate)
    assert response.status == (401 if asked else 200)
    assert len(forwarded.calls) == (0 if asked else 1)
    if asked:
        assert response.error()["code"] == "invalid_api_key"
        assert response.header("www-authenticate") == "Bearer"
    assert (await Request(headers=BEARER, **request_).to(gate)).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", FILES])
async def test_a_preflight_shows_no_key(path):
    gate = LLMGate(Upstream(), master_key=KEY, policies={"files": "pass"})
    assert (
        await Request(method="OPTIONS", path=path, headers=[("origin", "https://a.example")]).to(gate)
    ).status == 200


@pytest.mark.parametrize("headers", [[], [("authorization", "Bearer sk-wrong")]], ids=["none", "wrong"])
async def test_without_the_key_no_body_is_read_and_no_hook_runs(headers):
    witness, upstream = Witness(), Upstream()
    request = Request(chat(), headers=[*JSON, *headers])
    response = await request.to(LLMGate(upstream, callbacks=[witness], master_key=KEY))
    assert response.status == 401
    assert (request.received, witness.calls, upstream.calls) == (0, [], [])
    assert [exc.status_code for exc in witness.failures] == [401]


async def test_the_caller_of_the_master_key():
    witness = Witness()
    await Request(chat(user="u"), headers=BEARER).to(LLMGate(Upstream(), callbacks=[witness], master_key=KEY))
    ((caller, _),) = witness.calls
    assert (caller.user_id, caller.user_role, caller.end_user_id) == ("default_user_id", "proxy_admin", "u")
    assert caller.api_key == hashlib.sha256(KEY.encode()).hexdigest()


async def test_custom_auth_says_who_is_calling():
    def auth(request, api_key):
        return UserAPIKeyAuth(user_id=request.headers["x-user"], end_user_id="of the key")

    witness = Witness()
    gate = LLMGate(Upstream(), callbacks=[witness], custom_auth=auth)
    await Request(chat(user="u"), headers=[*JSON, ("x-user", "ada")]).to(gate)
    ((caller, data),) = witness.calls
    assert (caller.user_id, caller.end_user_id) == ("ada", "of the key")
    assert data["metadata"]["user_api_key_user_id"] == "ada"


@pytest.mark.parametrize("path", ["/v1/chat/completions", FILES])
async def test_custom_auth_refuses(path):
    def auth(request, api_key):
        raise HTTPException(402, {"error": "pay first"})

    gate = LLMGate(Upstream(), custom_auth=auth, policies={"files": "pass"})
    response = await Request(chat(), path=path).to(gate)
    assert (response.status, response.error()["message"]) == (402, "pay first")


@pytest.mark.parametrize("path", ["/v1/chat/completions", FILES])
async def test_a_caller_that_breaks_is_the_hosts_to_report(path):
    """It is neither a refusal nor a hook's crash, and must not let anybody in."""

    class Broken:
        def model_copy(self):
            raise RuntimeError("broken")

    upstream = Upstream()
    gate = LLMGate(upstream, custom_auth=lambda request, api_key: Broken(), policies={"files": "pass"})
    request = Request(chat(), path=path)
    with pytest.raises(RuntimeError, match="broken"):
        await request.to(gate)
    assert (request.sent, upstream.calls) == ([], [])


async def test_a_key_is_no_ones_to_check_when_none_is_set():
    witness = Witness()
    await Request(chat(), headers=BEARER).to(LLMGate(Upstream(), callbacks=[witness]))
    ((caller, _),) = witness.calls
    assert (caller.api_key, caller.user_id) == (hashlib.sha256(KEY.encode()).hexdigest(), None)


# A gated path, and whether OpenAI's endpoint has a `user` to forward.
USERS = [
    ("/v1/chat/completions", True),
    ("/v1/completions", True),
    ("/v1/embeddings", True),
    ("/v1/images/generations", True),
    ("/v1/moderations", False),
]


@pytest.mark.parametrize(("path", "has_user"), USERS, ids=[row[0] for row in USERS])
@pytest.mark.parametrize("callbacks", [[], [Witness()]], ids=["no hook", "a hook"])
async def test_the_user_is_enforced_and_forwarded_where_there_is_one(path, has_user, callbacks):
    def body(**fields):
        return orjson.dumps({"model": "m", "user": "u", **fields})

    for forward_user, forwarded in (("documented", has_user), ("always", True)):
        upstream = Upstream()
        gate = LLMGate(upstream, callbacks=callbacks, enforce_user_param=True, forward_user=forward_user)
        assert (await Request(body(), path=path).to(gate)).status == 200
        assert ("user" in upstream.data) is forwarded
    response = await Request(body(user=" "), path=path).to(gate)
    assert (response.status, response.error()["param"]) == (400, "user")
    upstream = Upstream()
    assert (await Request(body(), path=path).to(LLMGate(upstream, callbacks=callbacks))).status == 200
    assert upstream.data["user"] == "u"


async def test_the_user_is_checked_before_any_hook():
    witness, upstream = Witness(), Upstream()
    gate = LLMGate(upstream, callbacks=[witness], enforce_user_param=True, enforced_params=["metadata.run"])
    for body, param in (
        (chat(), "user"),
        (chat(user="u"), "metadata.run"),
        (chat(user="u", metadata={}), "metadata.run"),
    ):
        response = await Request(body).to(gate)
        assert (response.status, response.error()["param"]) == (400, param)
        assert response.error()["code"] == "missing_required_parameter"
    assert (witness.calls, upstream.calls) == ([], [])
    assert (await Request(chat(user="u", metadata={"run": "r"})).to(gate)).status == 200
    assert [exc.param for exc in witness.failures] == ["user", "metadata.run", "metadata.run"]


async def test_another_field_may_say_who_the_user_is():
    witness = Witness()
    gate = LLMGate(Upstream(), callbacks=[witness], enforce_user_param=True, user_params=["user", "safety_identifier"])
    assert (await Request(chat(safety_identifier="s")).to(gate)).status == 200
    ((caller, _),) = witness.calls
    assert caller.end_user_id == "s"


async def test_a_user_is_known_without_being_enforced():
    witness = Witness()
    gate = LLMGate(Upstream(), callbacks=[witness])
    for user in ("u", 7):
        await Request(chat(user=user)).to(gate)
    assert [caller.end_user_id for caller, _ in witness.calls] == ["u", None]


async def test_ways_past_send_are_hidden_from_the_app_when_something_looks_at_responses():
    extensions = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "tls": {}}
    for callbacks, left in (([], set(extensions)), ([Witness()], {"tls"})):
        upstream = Upstream()
        await Request(chat(), scope={"extensions": extensions}).to(LLMGate(upstream, callbacks=callbacks))
        assert set(upstream.calls[0][0]["extensions"]) == left
    assert len(extensions) == 3


async def test_the_clients_scope_is_left_as_it_was():
    def auth(request, api_key):
        return UserAPIKeyAuth(user_id="u")

    request = Request(chat(), headers=BEARER)
    before = dict(request.scope), list(request.scope["headers"])
    await request.to(LLMGate(Upstream(), callbacks=[Witness()], custom_auth=auth))
    assert (request.scope, request.scope["headers"]) == before


async def test_a_stream_passes_success_hooks_untouched():
    class Success(CallHooks):
        async def async_post_call_success_hook(self, response):
            seen.append(response)

    seen: list[object] = []
    messages = answer(b"data: 1\n\n", content_type="text/event-stream")
    response = await Request(chat(stream=True)).to(LLMGate(Upstream(messages), callbacks=[Success()]))
    assert response.sent == messages
    await Request(chat()).to(LLMGate(Upstream(), callbacks=[Success()]))
    assert seen == [{"ok": True}]


def test_a_wrong_setting_is_one_line_at_the_start():
    with pytest.raises(ConfigError, match=r"^hook_timeouts: not a setting; did you mean hook_timeout\?$"):
        LLMGate(Upstream(), hook_timeouts=1)
