"""Files that include others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asgi_llm_gate.config import ConfigError, load_settings
from asgi_llm_gate.includes import MAX_DEPTH
from asgi_llm_gate.source import Source

HANDLERS = """
class Handler:
    def async_pre_call_hook(self, data): ...

one, two = Handler(), Handler()
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return the function that writes files, by name."""
    monkeypatch.chdir(tmp_path)
    Path("included_hooks.py").write_text(HANDLERS)

    def write(files):
        for name, text in files.items():
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text)

    return write


def load(environ=None):
    return load_settings("gate.yaml", {}, environ or {})


def test_files_are_put_together(write):
    """Sections join by their names; models, callbacks and enforced fields add up, the including file's first."""
    write(
        {
            "gate.yaml": """
include: [parts/models.yaml, parts/guards.yaml]
model_list: [{model_name: a, litellm_params: {model: a}}]
litellm_settings: {callbacks: included_hooks.one}
general_settings: {enforced_params: user}
gate_settings:
""",
            "parts/models.yaml": "model_list: [{model_name: b, litellm_params: {model: b}}]\ninclude: more.yaml",
            "parts/more.yaml": "gate_settings: {hook_timeout: 3}",
            "parts/guards.yaml": """
litellm_settings: {callbacks: [included_hooks.two]}
general_settings: {enforced_params: [metadata.team], master_key: sk-1}
gate_settings: {cancel_grace: 2}
""",
        }
    )
    settings = load()
    assert [entry["model_name"] for entry in settings.model_list] == ["a", "b"]
    assert len({id(callback) for callback in settings.callbacks}) == 2
    assert settings.enforced_params == ("user", "metadata.team")
    assert (settings.master_key, settings.hook_timeout, settings.cancel_grace) == ("sk-1", 3, 2)
    assert Source.of("gate.yaml", {}).prefix == "gate.yaml, parts/models.yaml, parts/more.yaml, parts/guards.yaml: "


def test_a_file_that_several_include_counts_once(write):
    """Its callbacks do not run twice."""
    write(
        {
            "gate.yaml": "include: [a.yaml, b.yaml]",
            "a.yaml": "include: [c.yaml]",
            "b.yaml": "include: [c.yaml, ./c.yaml]",
            "c.yaml": "litellm_settings: {callbacks: [included_hooks.one]}",
        }
    )
    assert len(load().callbacks) == 1


def test_what_several_files_say_alike_is_said_once(write):
    write(
        {
            "gate.yaml": "include: [a.yaml]\ngeneral_settings: {master_key: sk-1}\nlitellm_settings: {callbacks: &c\n"
            "  [included_hooks.one]}",
            "a.yaml": "general_settings: {master_key: sk-1}\nlitellm_settings: {callbacks: [included_hooks.one]}",
        }
    )
    settings = load()
    assert (settings.master_key, len(settings.callbacks)) == ("sk-1", 1)


def test_a_files_name_may_stand_in_the_environment(write):
    write({"gate.yaml": "include: [os.environ/GUARDS]", "a.yaml": "gate_settings: {hook_timeout: 3}"})
    assert load({"GUARDS": "a.yaml"}).hook_timeout == 3


def test_including_nothing_changes_nothing(write, caplog):
    caplog.set_level(logging.WARNING, logger="asgi_llm_gate")
    write({"gate.yaml": "include:\ngate_settings: {hook_timeout: 3}"})
    assert load().hook_timeout == 3
    assert caplog.messages == []


DEEP = {f"{n}.yaml": f"include: [{n + 1}.yaml]" for n in range(MAX_DEPTH + 1)}
INSTEAD = "name handlers that do the same under litellm_settings.callbacks"
LIST = "gate.yaml: include: expected a list of files"

# Files, and the whole line that says what is wrong with them.
WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a file that is not there": (
        {"gate.yaml": "include: [a.yaml, b.yaml]", "a.yaml": "{}"},
        "gate.yaml: include[1]: b.yaml: No such file or directory",
    ),
    "a file that is no file": ({"gate.yaml": "include: [.]"}, "gate.yaml: include[0]: .: Is a directory"),
    "a name with a zero": (
        {"gate.yaml": 'include: ["a\\0b"]'},
        "gate.yaml: include[0]: a\\x00b: no path has such a character",
    ),
    "a file that is wrong": (
        {"gate.yaml": "include: [d/a.yaml]", "d/a.yaml": "include: [b.yaml]", "d/b.yaml": "a: 1\na: 2"},
        "gate.yaml: include[0]: d/a.yaml: include[0]: d/b.yaml: line 2: a stands here twice",
    ),
    "itself": ({"gate.yaml": "include: [gate.yaml]"}, "gate.yaml: include[0]: gate.yaml: includes itself"),
    "a circle": (
        {"gate.yaml": "include: [a.yaml]", "a.yaml": "include: [b.yaml]", "b.yaml": "include: [./gate.yaml]"},
        "gate.yaml: include[0]: a.yaml: include[0]: b.yaml: include[0]: gate.yaml: includes itself",
    ),
    "too many": (
        {"gate.yaml": "include: [0.yaml]", **DEEP},
        "gate.yaml: "
        + "".join(f"include[0]: {n}.yaml: " for n in range(MAX_DEPTH))
        + f"more than {MAX_DEPTH} files include one another",
    ),
    "a number": ({"gate.yaml": "include: 5"}, LIST),
    "a mapping": ({"gate.yaml": "include: {a: b}"}, LIST),
    "a number in the list": ({"gate.yaml": "include: [5]"}, LIST),
    "no name": ({"gate.yaml": "include: ''"}, LIST),
    "an unset variable": (
        {"gate.yaml": "include: [os.environ/GUARDS]"},
        "gate.yaml: include[0]: the environment variable GUARDS is not set",
    ),
    "another key": (
        {
            "gate.yaml": "include: [a.yaml]\ngeneral_settings: {master_key: a}",
            "a.yaml": "general_settings: {master_key: b}",
        },
        "gate.yaml: include[0]: a.yaml: general_settings.master_key: gate.yaml has it too, and otherwise",
    ),
    "another kind of section": (
        {"gate.yaml": "include: [a.yaml]\ngate_settings: {hook_timeout: 1}", "a.yaml": "gate_settings: [a]"},
        "gate.yaml: include[0]: a.yaml: gate_settings: gate.yaml has it too, and otherwise",
    ),
    "what has no end": (
        {"gate.yaml": "include: [a.yaml]\nx: &a [*a]", "a.yaml": "x: &a [*a]"},
        "gate.yaml: nested too deep",
    ),
    "a mistake in what is put together": (
        {"gate.yaml": "include: [a.yaml]", "a.yaml": "gate_settings: {hook_timeout: 0}"},
        "gate.yaml, a.yaml: gate_settings.hook_timeout: expected more than 0 seconds",
    ),
    "guardrails in an included file": (
        {"gate.yaml": "include: [a.yaml]", "a.yaml": "guardrails: [{guardrail_name: a}]"},
        f"gate.yaml, a.yaml: guardrails: not served by this version; {INSTEAD}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_that_leads_to_its_file(name, write):
    files, line = WRONG[name]
    write(files)
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == line
