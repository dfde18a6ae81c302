"""Where the path names the model, hooks see that one, and change the path."""

from __future__ import annotations

import pytest

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import Request, Upstream, chat

pytestmark = pytest.mark.anyio

AZURE = "/openai/deployments/gpt-4o/chat/completions"


class Sees(CallHooks):
    """Notes the model, and puts another in its place if it has one."""

    def __init__(self, model=None):
        self.model = model
        self.seen = []

    async def async_pre_call_hook(self, data):
        self.seen.append(data["model"])
        if self.model is not None:
            data["model"] = self.model
        return "no" if data["model"] == "refused" else None


def without_model():
    return chat().replace(b'"model":"gpt-4o-mini",', b"")


PATHS = {
    "Azure": (AZURE, b"/openai/deployments/gpt-4o/chat/completions"),
    "Azure under a prefix": (
        "/azure/Deployments/gpt-4o/embeddings",
        b"/azure/Deployments/gpt-4o/embeddings",
    ),
    "an engine": ("/v1/engines/gpt-4o/completions", b"/v1/engines/gpt%2d4o/completions"),
}


@pytest.mark.parametrize("name", PATHS)
async def test_a_hook_sees_the_paths_model_and_changes_the_path(name):
    path, raw = PATHS[name]
    app, sees = Upstream(), Sees("other")
    await Request(chat(), path, scope={"raw_path": raw}).to(LLMGate(app, callbacks=[sees]))
    assert sees.seen == ["gpt-4o"]
    ((scope, _),) = app.calls
    assert scope["path"] == path.replace("gpt-4o", "other")
    assert scope["raw_path"] == scope["path"].encode()
    assert app.data["model"] == "other"


@pytest.mark.parametrize("body", [chat(), without_model()], ids=["a model in the body", "none in the body"])
async def test_what_no_hook_changes_stays_in_path_and_body(body):
    app, sees = Upstream(), Sees()
    await Request(body, AZURE).to(LLMGate(app, callbacks=[sees]))
    assert sees.seen == ["gpt-4o"]
    ((scope, sent),) = app.calls
    assert (scope["path"], sent, "raw_path" in scope) == (AZURE, body, False)


async def test_without_hooks_the_path_is_left_alone():
    app = Upstream()
    await Request(chat(), AZURE).to(LLMGate(app))
    assert (app.calls[0][0]["path"], app.calls[0][1]) == (AZURE, chat())


async def test_other_paths_have_no_model_of_their_own():
    app, sees = Upstream(), Sees("other")
    await Request(chat()).to(LLMGate(app, callbacks=[sees]))
    assert (sees.seen, app.calls[0][0]["path"]) == (["gpt-4o-mini"], "/v1/chat/completions")


async def test_a_message_in_place_of_a_call_names_the_paths_model():
    response = await Request(without_model(), AZURE).to(LLMGate(Upstream(), callbacks=[Sees("refused")]))
    assert response.json()["model"] == "gpt-4o"


@pytest.mark.parametrize(
    "model", ["", "a/b", "a b", "..", ".", "a%2Fb", "a?b", "a;b", "a\\b", "modèle", 7, None, ["a"]], ids=repr
)
async def test_what_can_be_no_segment_of_a_path_is_a_hooks_mistake(model, caplog):
    class Sets(CallHooks):
        async def async_pre_call_hook(self, data):
            data["model"] = model

    app = Upstream()
    response = await Request(chat(), AZURE).to(LLMGate(app, callbacks=[Sets()]))
    assert (response.status, response.error()["code"], app.calls) == (500, "internal_error", [])
    assert "Sets.async_pre_call_hook" in caplog.text
