"""The official client of three generations reads the same from a served gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.demo.echo import EchoModel
from tests.commandline import ROOT
from tests.servers import serve
from tests.services import missing

# What the older ones need beside what is installed for the newest.
FURTHER = ("distro", "jiter", "sniffio", "tqdm")

PASSES, REFUSED, FORBIDDEN, CUT = PROMPTS = ("good morning", "say hello", "say a secret", "say it until it hurts")


class Handler(CallHooks):
    async def async_pre_call_hook(self, data, call_type):
        prompt = get_formatted_prompt(data, call_type)
        if prompt == REFUSED:
            return "No greetings"
        if prompt == FORBIDDEN:
            raise HTTPException(403, {"error": "No secrets"})
        return None

    async def async_post_call_success_hook(self, response):
        if response.get("object") == "chat.completion":
            response.choices[0].message.content = response.choices[0].message.content.upper()

    async def async_post_call_streaming_hook(self, response):
        if "hurts" in response:
            raise HTTPException(422, {"error": "Enough"})
        return response.upper()


ANY = {FORBIDDEN: ["PermissionDeniedError", 403, "No secrets", "403"], CUT: CUT}
SAID = {PASSES: PASSES, REFUSED: "No greetings", **ANY}
ENDS = {**ANY, CUT: ["APIError", "Enough", "422"]}
STREAMED = {PASSES: PASSES.upper(), REFUSED: "No greetings", **ENDS}
REFUSES = {**ANY, REFUSED: ["BadRequestError", 400, "No greetings", "content_policy_violation"]}
EXPECTED = {
    "chat": {**ANY, PASSES: [PASSES.upper(), "stop"], REFUSED: ["No greetings", "stop"], CUT: [CUT.upper(), "stop"]},
    "chat_stream": {**ENDS, PASSES: [PASSES.upper(), ["stop"], True], REFUSED: ["No greetings", ["stop"], True]},
    "chat_helper": STREAMED,
    "text": SAID,
    "text_stream": STREAMED,
    "responses": SAID,
    "responses_stream": {
        **ANY,
        PASSES: [PASSES.upper(), "response.completed", PASSES.upper()],
        REFUSED: ["No greetings", "response.completed", "No greetings"],
        CUT: ["SAY IT UNTIL IT", "response.failed", "SAY IT UNTIL IT"],
    },
    "embeddings": {**REFUSES, PASSES: 1, CUT: 1},
    "moderations": {**REFUSES, PASSES: False, CUT: False},
}


@pytest.fixture(scope="module")
def url():
    with serve(LLMGate(EchoModel(pause=0), callbacks=[Handler()])) as url:
        yield f"{url}/v1"


def installed(major, folder):
    """A folder that has the client of an older generation."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", folder, f"openai=={major}.*", *FURTHER], capture_output=True, text=True
    )
    if done.returncode:  # pragma: no cover  # where the package index can't be reached
        missing(f"NOT RUN: the official client {major}.x can't be installed: {done.stderr}")
    return folder


@pytest.mark.parametrize("major", ["1", "2", "3"])
def test_generations(url, tmp_path, major):
    """Answers, streams, refused messages, errors, and errors in a stream."""
    path = [ROOT] if major == "3" else [installed(major, tmp_path), ROOT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-m", "tests.old_client", url, *PROMPTS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    version, got = json.loads(done.stdout)
    assert version.startswith(f"{major}.")
    assert got == {name: [rows[prompt] for prompt in PROMPTS] for name, rows in EXPECTED.items()}
