"""A key that is limited to models reaches no other, whatever way the model is named."""

from __future__ import annotations

import orjson
import pytest

from asgi_llm_gate import CallHooks, Forwarder, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.endpoints import ENDPOINTS
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.model_access import check_access
from tests.harness import CHAT, Request, Upstream
from tests.multipart import sent_as_form
from tests.test_batches import STORED, jsonl, row, upload
from tests.websocket import REALTIME, RESPONSES, Script, WebSocket

pytestmark = pytest.mark.anyio

KEY, FREE = "sk-limited", "sk-free"
MODELS = ["gpt-4o", "o3-*", "azure/*/mini"]
KEYS = [{"api_key": KEY, "models": MODELS}, {"api_key": FREE}]


class Counts(CallHooks):
    """Counts the calls that it sees, and puts a model in their place that no client may ask for."""

    def __init__(self):
        self.calls = 0

    async def async_pre_call_hook(self, data):
        self.calls += 1
        data["model"] = "the-real-one"


def body(**fields):
    return orjson.dumps({"messages": [], **fields})


AZURE = "/openai/deployments/{}/chat/completions"

# What is asked, and whether the key may.
CALLS = [
    ("its model", CHAT, body(model="gpt-4o"), True),
    ("one of a pattern", CHAT, body(model="o3-mini"), True),
    ("a pattern's start", CHAT, body(model="o3-"), True),
    ("a pattern with two ends", CHAT, body(model="azure/eu/west/mini"), True),
    ("its ends that overlap", CHAT, body(model="azure/mini"), False),
    ("another end", CHAT, body(model="azure/eu/minimal"), False),
    ("another model", CHAT, body(model="gpt-4"), False),
    ("a longer name", CHAT, body(model="gpt-4o-mini"), False),
    ("in capitals", CHAT, body(model="GPT-4o"), False),
    ("with a space", CHAT, body(model="gpt-4o "), False),
    ("a pattern as a model", CHAT, body(model="o3*"), False),
    ("an empty model", CHAT, body(model=""), False),
    ("no model", CHAT, body(), False),
    ("null", CHAT, body(model=None), False),
    ("a number", CHAT, body(model=4), False),
    ("a list with its model", CHAT, body(model=["gpt-4o"]), False),
    ("the last of two", CHAT, b'{"model": "gpt-4o", "model": "gpt-4"}', False),
    ("a very long name", CHAT, body(model="x" * 10_000), False),
    ("another to fall back on", CHAT, body(model="gpt-4o", fallbacks=["gpt-4"]), False),
    ("its own to fall back on", CHAT, body(model="gpt-4o", fallbacks=["o3-pro", {"model": "gpt-4o"}]), True),
    ("a router's map", CHAT, body(model="gpt-4o", fallbacks=[{"gpt-4o": ["gpt-4"]}]), False),
    ("another beside it", CHAT, body(model="gpt-4o", models=["gpt-4o", "gpt-4"]), False),
    ("another beside it, no list", CHAT, body(model="gpt-4o", models="gpt-4"), False),
    ("nothing beside it", CHAT, body(model="gpt-4o", models=[], fallbacks=None), True),
    ("only one to fall back on", CHAT, body(models=["gpt-4o"]), False),
    ("its deployment", AZURE.format("gpt-4o"), body(), True),
    ("its deployment, another in the body", AZURE.format("gpt-4o"), body(model="gpt-4"), True),
    ("another deployment", AZURE.format("gpt-4"), body(model="gpt-4o"), False),
    ("a message", "/v1/messages", body(model="gpt-4"), False),
    ("an embedding", "/v1/embeddings", body(model="gpt-4o", input="a"), True),
    ("a moderation without a model", "/v1/moderations", body(input="a"), False),
    ("a conversation", "/v1/conversations", body(items=[]), True),
    ("a thread", "/v1/threads", body(), True),
    ("a run of the assistant's model", "/v1/threads/t/runs", body(assistant_id="a"), False),
    ("a run of its model", "/v1/threads/t/runs", body(assistant_id="a", model="gpt-4o"), True),
    ("a search", "/v1/vector_stores/v/search", body(query="a"), True),
    ("a search by another model", "/v1/vector_stores/v/search", body(query="a", model="gpt-4"), False),
    ("a session of its model", "/v1/realtime/client_secrets", body(session={"model": "gpt-4o"}), True),
    ("a session of another", "/v1/realtime/client_secrets", body(session={"model": "gpt-4"}, model="gpt-4o"), False),
    ("a session of any", "/v1/realtime/client_secrets", body(model="gpt-4o"), False),
]


def may_not(response):
    error = response.error()
    assert (response.status, error["type"], error["param"]) == (403, "permission_error", "model")
    return error["code"] == "key_model_access_denied"


@pytest.mark.parametrize(("path", "body", "may"), [call[1:] for call in CALLS], ids=[call[0] for call in CALLS])
async def test_which_calls_a_limited_key_may_make(path, body, may):
    """What the client asked for counts, before any hook; a key without models may make them all."""
    app, counts = Upstream(), Counts()
    gate = LLMGate(app, callbacks=[counts], keys=KEYS)
    response = await keyed(Request(body, path)).to(gate)
    assert (response.status, len(app.calls), counts.calls) == ((200, 1, 1) if may else (403, 0, 0))
    if not may and path == "/v1/messages":
        assert response.json()["error"] == {
            "type": "permission_error",
            "message": "This key may not use the model `gpt-4`",
        }
    elif not may:
        assert may_not(response)
        assert len(response.error()["message"]) < 300
    assert (await keyed(Request(body, path), FREE).to(gate)).status == 200


def keyed(request, key=KEY):
    request.scope["headers"] = [*request.scope["headers"], (b"authorization", f"Bearer {key}".encode())]
    return request


@pytest.mark.parametrize(("model", "status"), [("gpt-4o", 200), ("gpt-4", 403), (None, 403)])
async def test_a_form_names_its_model(model, status):
    request = sent_as_form("/v1/audio/transcriptions", {} if model is None else {"model": model})
    assert (await keyed(request).to(LLMGate(Upstream(), keys=KEYS))).status == status


def test_an_endpoint_names_its_model_unless_it_runs_none():
    without = {row.suffix for row in ENDPOINTS if row.model is None}
    assert without == {
        *("/files", "/uploads", "/uploads/{}/parts", "/uploads/{}/complete", "/batches"),
        *("/conversations", "/conversations/{}/items", "/vector_stores/{}/search"),
        *("/threads", "/threads/{}/messages", "/threads/{}/runs/{}/submit_tool_outputs"),
    }


ALLOWED = [
    (None, True),
    ([], True),
    ((), True),
    (["*"], True),
    (["all-proxy-models"], True),
    (["other", "*"], True),
    ("gpt-4o", True),
    ("gpt-*", True),
    (["g*4*"], True),
    (["g*4*o"], True),
    (["*4o"], True),
    (["**o"], True),
    (["gpt-4o*"], True),
    (["*gpt-4o*"], True),
    (["g*4*4o"], False),
    (["g*o*4*"], False),
    (["gpt"], False),
    (["no-default-models"], False),
    ([None], False),
    (["gpt-4?"], False),
    (["gpt-[4]o"], False),
    (["gpt.4o"], False),
]


@pytest.mark.parametrize(("models", "may"), ALLOWED, ids=repr)
def test_what_models_a_list_allows(models, may):
    if may:
        check_access(UserAPIKeyAuth(models=models), ["gpt-4o"], {})
    else:
        with pytest.raises(GateError, match="may not use the model `gpt-4o`"):
            check_access(UserAPIKeyAuth(models=models), ["gpt-4o"], {})


def test_a_pattern_of_many_stars_is_tried_in_linear_time():
    with pytest.raises(GateError):
        check_access(UserAPIKeyAuth(models=["*a" * 50 + "b"]), ["a" * 100_000], {})


async def test_whom_custom_auth_names_has_models_too():
    gate = LLMGate(Upstream(), custom_auth=lambda request, api_key: UserAPIKeyAuth(models=["gpt-4o"]))
    assert (await Request(body(model="gpt-4o")).to(gate)).status == 200
    assert may_not(await Request(body(model="gpt-4")).to(gate))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(1, model="gpt-4o"), row(2, model="o3-mini")], None),
        ([row(1, model="gpt-4o"), row(2, model="gpt-4")], "Line 2: This key may not use the model `gpt-4`"),
        ([row(1, "/openai/deployments/gpt-4/chat/completions", model="gpt-4o")], "Line 1: This key may not use"),
        ([row(1, messages=[])], "Line 1: This key may use certain models only"),
    ],
    ids=["its own", "another", "another deployment", "none"],
)
async def test_each_line_of_a_file_of_calls_names_its_model(lines, message):
    app = Upstream(STORED)
    response = await keyed(upload(jsonl(*lines))).to(LLMGate(app, keys=KEYS))
    assert response.status == (403 if message else 200)
    if message:
        assert may_not(response)
        assert response.error()["message"].startswith(message)
    assert len(app.calls) == (not message)


BATCH = orjson.dumps({"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"})


@pytest.mark.parametrize(("uploader", "status"), [(KEY, 200), (FREE, 403)])
async def test_a_limited_key_starts_no_batch_of_another_keys_file(uploader, status):
    """Whose lines name models that it may not use."""
    gate = LLMGate(Upstream(STORED), keys=KEYS)
    assert (await keyed(upload(jsonl(row(1, model="gpt-4o"))), uploader).to(gate)).status == 200
    response = await keyed(Request(BATCH, "/v1/batches")).to(gate)
    assert response.status == status
    if status == 403:
        assert response.error()["param"] == "input_file_id"
    assert (await keyed(Request(BATCH, "/v1/batches"), FREE).to(gate)).status == 200


PASSING = {"files": "pass", "batches": "pass", "invocations": "pass"}

# What passes unseen: the request, the app, and whether a limited key may.
UNSEEN = [
    ("a file", "POST", "/v1/files", False, True),
    ("a batch", "POST", "/v1/batches", False, False),
    ("a model", "POST", "/invocations", False, False),
    ("a list of files", "GET", "/v1/files", False, True),
    ("an upstream's models", "GET", "/v1/models", True, True),
    ("what an upstream may run", "POST", "/v1/score", True, False),
    ("what an upstream may change", "PATCH", "/pooling", True, False),
    ("what an upstream deletes", "DELETE", "/v1/files/f", True, True),
    ("an own path", "POST", "/v1/cancel", True, True),
    ("a host's path", "POST", "/v1/score", False, True),
]


@pytest.mark.parametrize(("method", "path", "upstream", "may"), [row[1:] for row in UNSEEN], ids=[r[0] for r in UNSEEN])
async def test_what_may_run_a_model_unseen_is_not_for_a_limited_key(method, path, upstream, may, monkeypatch):
    app = Upstream()

    async def forward(self, *connection):
        await app(*connection)

    monkeypatch.setattr(Forwarder, "__call__", forward)
    settings = {"keys": KEYS, "policies": PASSING, "paths": {"/cancel": "pass"}}
    gate = LLMGate(Forwarder("http://127.0.0.1:9/v1", api_key="k") if upstream else app, **settings)
    response = await keyed(Request(b"{}", path, method)).to(gate)
    assert (response.status, len(app.calls)) == ((200, 1) if may else (403, 0))
    if not may:
        assert may_not(response)
    assert (await keyed(Request(b"{}", path, method), FREE).to(gate)).status == 200


CONNECTIONS = [
    ("its model", REALTIME, "model=gpt-4o", True),
    ("its deployment", "/openai/realtime", "api-version=1&deployment=gpt-4o", True),
    ("another model", REALTIME, "model=gpt-4", False),
    ("another deployment", "/openai/realtime", "deployment=gpt-4", False),
    ("two models", REALTIME, "model=gpt-4&model=gpt-4o", False),
    ("a model and a deployment", REALTIME, "model=gpt-4o&deployment=gpt-4", False),
    ("an escaped one", REALTIME, "mode%6c=gpt-4&model=gpt-4o", False),
    ("an empty one", REALTIME, "model=", False),
    ("none", REALTIME, "intent=transcription", False),
    ("where events name it", RESPONSES, "", True),
]


@pytest.mark.parametrize(("path", "query", "may"), [row[1:] for row in CONNECTIONS], ids=[r[0] for r in CONNECTIONS])
async def test_a_websocket_names_its_model(path, query, may):
    app = Script()
    socket = WebSocket(path, query, {"authorization": f"Bearer {KEY}"})
    gate = LLMGate(app, keys=KEYS)
    if may:
        async with socket.open(gate):
            pass
    else:
        (message,) = await socket.to(gate)
        assert message["code"] == 1008
    assert len(app.scopes) == may


async def test_a_websocket_that_passes_unseen_is_not_for_a_limited_key():
    gate = LLMGate(Script(), keys=KEYS, policies={"realtime": "pass"})
    (message,) = await WebSocket(REALTIME, "model=gpt-4o", {"authorization": f"Bearer {KEY}"}).to(gate)
    assert message["code"] == 1008
    async with WebSocket(REALTIME, headers={"authorization": f"Bearer {FREE}"}).open(gate):
        pass


EVENTS = [
    ("its model", RESPONSES, {"type": "response.create", "model": "gpt-4o"}, True),
    ("another model", RESPONSES, {"type": "response.create", "model": "gpt-4"}, False),
    ("another in its response", RESPONSES, {"type": "response.create", "response": {"model": "gpt-4"}}, False),
    ("none", RESPONSES, {"type": "response.create"}, False),
    ("a response that goes on", RESPONSES, {"type": "response.steer"}, True),
    ("a session of its model", REALTIME, {"type": "session.update", "session": {"model": "gpt-4o"}}, True),
    ("a session of another", REALTIME, {"type": "session.update", "session": {"model": "gpt-4"}}, False),
    ("a session of the same", REALTIME, {"type": "session.update", "session": {}}, True),
    ("a response of another", REALTIME, {"type": "response.create", "response": {"model": "gpt-4"}}, False),
]


@pytest.mark.parametrize(("path", "event", "may"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
async def test_an_event_names_its_model(path, event, may):
    app, counts = Script([{"type": "heard"}]), Counts()
    socket = WebSocket(path, "model=gpt-4o", {"authorization": f"Bearer {KEY}"})
    async with socket.open(LLMGate(app, callbacks=[counts], keys=KEYS)):
        socket.say(event)
        answer = await socket.hear()
        if may:
            assert answer == {"type": "heard"}
        else:
            assert answer["error"]["code"] == "key_model_access_denied"
    assert counts.calls == len(app.got) == may
