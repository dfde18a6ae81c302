"""Handler files in the style of the wild: the same comes of them with LiteLLM installed and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import missing
from tests.wild import ASKED, SAID, WILD, outcomes

ROOT = Path(__file__).parents[1]
SHOWN = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m"}
MASKED = SAID.replace("ann@example.org", "<address>")

# For each thing asked: the status, what the client reads, what of the request the model got changed (None if it got
# nothing), and the headers added; then what the file itself noted.
EXPECTED = {
    "model_router": [[200, SAID, {"model": "small"}], [200, SAID, {"model": "big"}], [200, SHOWN, {}]],
    "keyword_filter": [
        [200, "Mind your language (1)", None],
        [200, "That word is not for the model (2)", None],
        [200, SAID, {}],
        {"blast": 1, "mellon": 1},
    ],
    "rejecting": [
        [200, "Commands are not for the model", None],
        [200, "Commands are not for the model", None],
        [400, "Ask in a sentence", None],
        [200, SAID, {}],
    ],
    "pii_masker": [
        [200, MASKED, {"messages": [{"role": "user", "content": "I am <address>"}]}],
        [200, MASKED, {}],
        [200, MASKED, {}],
    ],
    "old_guardrail": [
        [200, SAID, {"messages": [{"role": "user", "content": "HI"}]}],
        [200, SHOWN, {"input": ["ONE", "TWO"]}],
    ],
    "on_request": [
        [200, SAID, {}],
        [200, SAID, {"messages": [{"role": "user", "content": "[gone]"}], "guardrails": None}],
        [200, "I can't repeat that", None],
        [200, "I can't repeat that", None],
    ],
    "native_guardrail": [[200, SAID, {}], [413, "Too long", None]],
    "typed_response": [[200, f"{SAID} -- the house", {}], [200, SAID.upper(), {}]],
    "rate_limit": [
        [200, SAID, {}],
        [429, "One call a minute, this is number 2", None, {"retry-after": "60"}],
        [200, SAID, {}],
    ],
    "plain_class": [[200, "And to you", None], [200, "There is nobody here", {}], [200, SAID, {}]],
    "audit_log": [
        [200, SAID, {}],
        [200, SAID, {}],
        [503, "overloaded", {}],
        [["success", "m", True, 7, True], ["success", "m", True, None, True], ["failure", "m", "overloaded", None]],
    ],
    "failure_mapper": [[403, "Who are you?", None], [502, "The model is having a rest", {}], [200, SAID, {}]],
    "headers": [
        [200, SAID, {}, {"x-house": "m"}],
        [200, SAID.replace("secret", "******"), {}, {"x-house": "m"}],
    ],
}


@pytest.fixture(autouse=True)
def _modules():
    """Have each test run its file anew."""
    modules = dict(sys.modules)
    yield
    sys.modules.clear()
    sys.modules.update(modules)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ASKED)
async def test_a_handler_file_runs_as_it_is(name):
    assert await outcomes(name) == EXPECTED[name]


def test_every_file_is_asked():
    assert {path.stem for path in WILD.glob("*.py")} - {"the_words"} == set(ASKED) == set(EXPECTED)


INTERPRETERS = {"without litellm": sys.executable, "with litellm": os.environ.get("LLM_GATE_LITELLM_PYTHON", "")}


@pytest.mark.parametrize("name", INTERPRETERS)
def test_the_same_comes_of_them_in_a_process_of_their_own(name):
    interpreter = INTERPRETERS[name] or missing("LLM_GATE_LITELLM_PYTHON names no Python that has LiteLLM")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [interpreter, "-m", "tests.wild", str(WILD)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=environment, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [name == "with litellm", EXPECTED]
