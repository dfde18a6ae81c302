"""Everything that the README and the pages of `docs` quote, run as a reader would run it."""

from __future__ import annotations
import __future__

import argparse
import copy
import gzip
import importlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse

from asgi_llm_gate import CallHooks, Forwarder, LLMGate
from asgi_llm_gate.cache.address import from_url
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.config import ConfigError, Settings, load_settings
from asgi_llm_gate.endpoints import ENDPOINTS, WEBSOCKETS
from asgi_llm_gate.litellm_names import importable
from tests.commandline import ROOT, command, environment, serving
from tests.harness import Request, Upstream
from tests.servers import serve
from tests.services import require

GUARDING = ROOT / "docs" / "guarding.md"
HOSTS = ROOT / "docs" / "hosts.md"
UPSTREAMS = ROOT / "docs" / "upstreams.md"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

# How each block or command that is not run begins, and why it is not.
NOT_RUN = {
    "client ──HTTP": "a picture",
    "# a part of examples/": "the example is run, and must have it",
    "gate.py ": "a map of the package, whose files must exist",
    "scripts/test": "it runs these tests",
    "scripts/bench": "it takes minutes, and its figures are of one machine",
    "vllm serve": "vLLM needs its models; the middleware is loaded as vLLM does it",
}

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello world"}], "user": "me"}


@dataclass
class Block:
    """A fenced block: its language, its text, and how many lines stand before that in the page."""

    language: str
    text: str
    above: int

    @property
    def file(self) -> str | None:
        """The file that the block is, by its first line."""
        named = re.match(r"# ([\w.-]+\.(?:py|yaml))\n", self.text)
        return named and named[1]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text.count("\n", 0, match.start(2))) for match in found]


def table(page: Path, title: str) -> list[list[str]]:
    """Return the cells of the rows of the page's table whose first column has a title."""
    match = re.search(rf"^\| {re.escape(title)} \|.*\n\|[ |-]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert match, f"{page.name} has no table of {title}"
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in match[1].splitlines()]


def code(cell: str) -> list[str]:
    """Return what stands in backticks in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def is_not_run(text: str) -> bool:
    return any(text.startswith(beginning) for beginning in NOT_RUN)


def same(expected: Any, found: Any, name: str = "") -> bool:
    """Compare answers: "…" stands for anything, within a text for some of it, and `created` for any time."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(expected) == list(found) and all(same(expected[key], found[key], key) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(expected, str) and isinstance(found, str):
        return matches(expected, found)
    return expected in ("…", found) or (name == "created" and isinstance(found, int))


def matches(expected: str, found: str) -> bool:
    """Compare texts: a line of "…" stands for any lines, "…" within a line for some of it."""
    pattern = re.sub(r"(?m)^…\\\n", "(?:.*\n)*", re.escape(expected)).replace("…", ".+")
    return re.fullmatch(pattern, found) is not None


def real_curl(arguments: list[str]) -> str:
    run = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return run.stdout


def stand_in_curl(arguments: list[str]) -> str:
    """Send what curl would send, where there is no curl."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-i", dest="include", action="store_true")
    parser.add_argument("-H", "--header", dest="headers", action="append", default=[])
    parser.add_argument("-d", "--data")
    given = parser.parse_args(arguments)
    headers = {} if given.data is None else {"content-type": "application/x-www-form-urlencoded"}
    headers |= {name.strip().lower(): value.strip() for name, value in (h.split(":", 1) for h in given.headers)}
    method = "GET" if given.data is None else "POST"
    answer = httpx.request(method, given.url, headers=headers, content=given.data, timeout=60)
    lines = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\n".join([*lines, "", answer.text]) if given.include else answer.text


curl = real_curl if shutil.which("curl") else stand_in_curl


class Reader:
    """Does what a page says, from top to bottom, in a folder of its own."""

    def __init__(self, page: Path, folder: Path, servers: ExitStack) -> None:
        self.page = page
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": page.stem}
        self.ports: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self._servers = servers

    def read(self) -> None:
        output = None
        for block in blocks(self.page):
            where = f"{self.page.name} line {block.above}"
            if block.language in {"json", "text"}:
                assert output is not None, f"{where}: nothing was run that could say this"
                self._compare(block, self._quoted(output), where)
                output = None
            elif is_not_run(block.text):
                output = None
            else:
                output = {"python": self._python, "yaml": self._yaml, "sh": self._sh}[block.language](block)

    def _compare(self, block: Block, output: str, where: str) -> None:
        if block.language == "json":
            assert same(json.loads(block.text), json.loads(output)), f"{where}: got {output}"
        else:
            output = re.sub(r"[ \r]+\n", "\n", output.rstrip() + "\n")
            assert matches(block.text, output), f"{where}: got\n{output}"

    def _real(self, text: str) -> str:
        for quoted, real in self.ports.items():
            text = text.replace(quoted, real)
        return text

    def _quoted(self, text: str) -> str:
        for quoted, real in self.ports.items():
            text = text.replace(real, quoted)
        return text.replace(f"{self.folder}/", "")

    def _write(self, block: Block) -> Path | None:
        if block.file is None:
            return None
        path = self.folder / block.file
        path.write_text(self._real(block.text))
        return path

    def _python(self, block: Block) -> str:
        """Run a block, and what it defines as tests; one that is a file may import what handler files import."""
        file = self._write(block)
        flags = __future__.annotations.compiler_flag if file else 0
        compiled = compile("\n" * block.above + self._real(block.text), self.page, "exec", flags, dont_inherit=True)
        known = dict(self.names)
        with redirect_stdout(io.StringIO()) as printed, ExitStack() as stack:
            if file:
                stack.enter_context(importable())
            exec(compiled, self.names)
            for name, value in list(self.names.items()):
                if name.startswith("test_") and value is not known.get(name):
                    value()
        return printed.getvalue()

    def _yaml(self, block: Block) -> str:
        file = self._write(block)
        load_settings(file or yaml.safe_load(self._real(block.text)), {}, {**os.environ, **self.env})
        return ""

    def _sh(self, block: Block) -> str:
        lines = block.text.replace("\\\n", " ").splitlines()
        return "".join(self._command(line.strip()) for line in lines)

    def _command(self, line: str) -> str:
        program, *arguments = shlex.split(self._real(line), comments=True) or [""]
        if program.startswith("scripts/"):
            assert os.access(ROOT / program, os.X_OK), line
        if not program or is_not_run(line):
            return ""
        if program == "curl":
            return curl(arguments)
        if program == "export":
            self.env.update(re.findall(r"^(\w+)=(.*)", "\n".join(arguments), re.MULTILINE))
            return ""
        if program == "echo":
            text, _, name = arguments
            (self.folder / name).write_text(text)
            return ""
        if arguments[:1] in (["check"], ["try"]):
            return self._finished(command(*arguments))
        return self._served(program, arguments)

    def _finished(self, argv: list[str]) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=environment(self.env), cwd=self.folder, timeout=60
        )
        return done.stdout + done.stderr

    def _served(self, program: str, arguments: list[str]) -> str:
        """Start a server on a free port, which stands for the one in the text."""
        quoted = f"127.0.0.1:{arguments.pop(arguments.index('--port') + 1) if '--port' in arguments else 4000}"
        arguments = [str(self.folder / word) if (self.folder / word).exists() else word for word in arguments]
        arguments = [word for word in arguments if word != "--port"] + ["--port", "0"]
        argv = command(*({"scripts/demo": ["demo"], "asgi-llm-gate": []}[program]), *arguments)
        server = self._servers.enter_context(serving(argv, env=self.env))
        self.ports[quoted] = server.url.removeprefix("http://")
        return "".join(server.lines)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a page, and give what its blocks left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASGI_LLM_GATE_CONFIG", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ExitStack() as servers:

        def read(page):
            reader = Reader(page, tmp_path, servers)
            reader.read()
            return reader

        yield read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_holds(page, read):
    """Each block runs, and what the page quotes as its result is its result."""
    assert read(page).names


def test_nothing_is_left_out_for_a_reason_that_is_gone():
    """Each exception of the list is still needed."""
    text = "\n".join(page.read_text() for page in PAGES)
    assert [beginning for beginning in NOT_RUN if f"\n{beginning}" not in text and f"`{beginning}" not in text] == []


def test_what_is_quoted_of_an_example_stands_in_it():
    """A part of an example is there to the letter."""
    quoted = [re.match(r"# a part of (\S+)\n(.*)", block.text, re.DOTALL) for page in PAGES for block in blocks(page)]
    parts = [match.groups() for match in quoted if match]
    assert parts
    for name, part in parts:
        assert part in (ROOT / name).read_text(), name


@pytest.mark.parametrize(("how", "example"), [row[1:] for row in table(HOSTS, "host")], ids=lambda cell: cell[-30:])
def test_each_hosts_example_does_as_the_page_says(how, example):
    """The line that puts the gate in front stands in the example, which may set more."""
    (link,) = re.findall(r"\((.*)\)", example)
    text = (HOSTS.parent / link).read_text()
    assert [part for part in code(how)[0].removesuffix(")").split("…") if part not in text] == []


def slug(heading: str) -> str:
    """Return a heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Each link within the project names a file that is there, and a heading that is in it."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text())
    for target, anchor in links:
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_the_map_of_the_package_names_its_modules():
    """Each file and folder of the map in the README is there."""
    (built,) = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("gate.py ")]
    named = re.findall(r"\b(?:[a-z_]+\.py|[a-z_]+/)", built)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / "asgi_llm_gate" / name).exists()] == []


WAYS = {what: code(how)[0] for what, how in table(ROOT / "README.md", "what")}


@pytest.mark.parametrize("what", WAYS)
def test_each_way_to_put_the_gate_in_front_holds(what, read, tmp_path, monkeypatch):
    """Each line of the README's table makes a gate, with stand-ins for its names, that rejects "Hello world"."""
    first = blocks(ROOT / "README.md")[0].text
    (tmp_path / "my_hooks.py").write_text(f"{first}\nhandler = MyHandler()\n")
    (tmp_path / "gate.yaml").write_text("litellm_settings: {callbacks: my_hooks.handler}")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(first, names)
    names |= {"app": Starlette(), "other_app": Starlette(), "get_asgi_application": Starlette, "Forwarder": Forwarder}
    line = WAYS[what]
    if line.startswith("asgi-llm-gate"):
        config = ROOT / "examples" / "litellm_config" / "config.yaml"
        arguments = [config if word == "config.yaml" else word for word in line.split()[1:]]
        with serving(command(*arguments, "--port", "0"), env={"UPSTREAM_URL": "http://127.0.0.1:9/v1"}) as server:
            answer = httpx.post(f"{server.url}/chat/completions", json=HELLO)
    else:
        if line.startswith("vllm"):
            monkeypatch.setenv("ASGI_LLM_GATE_CONFIG", "gate.yaml")
            module, _, attribute = line.split("--middleware ")[1].rpartition(".")
            names["app"].add_middleware(getattr(importlib.import_module(module), attribute))
        else:
            exec(line, names)
        with serve(names.get("application", names["app"])) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=HELLO)
    assert answer.json()["choices"][0]["message"]["content"] == "This is an invalid response"


@pytest.mark.parametrize("page", [PAGES[0], ROOT / "docs" / "writing-a-hook.md"], ids=lambda page: page.name)
def test_the_hooks_that_a_page_lists_are_those_there_are(page):
    """Names, order and arguments are the package's own."""
    first = [code(method)[0] for method, *_ in table(page, "method")]
    found = [match.groups() for method in first if (match := re.fullmatch(r"(\w+)\((.*)\)", method))]
    assert [name for name, _ in found] == [name for name in STAGES if "log_" not in name]
    for name, arguments in found:
        hook = getattr(CallHooks, name).__code__
        assert arguments == ", ".join(hook.co_varnames[1 : hook.co_argcount]), name


SETTINGS = table(ROOT / "docs" / "configuration.md", "setting")


def test_the_settings_listed_are_those_there_are():
    """Names and defaults are those of `Settings`; "-" stands for none."""
    listed = {code(name)[0]: default for name, _, default, *_ in SETTINGS}
    there = {setting.name: json.loads(json.dumps(getattr(Settings(), setting.name))) for setting in fields(Settings)}
    assert {name: None if given == "-" else yaml.safe_load(*code(given)) for name, given in listed.items()} == there


@pytest.mark.parametrize(("name", "section"), [(code(row[0])[0], "".join(code(row[1]))) for row in SETTINGS])
def test_a_setting_stands_where_the_page_says(name, section, caplog):
    """Where it stands a value of nothing is a mistake; a file has no place for what is a keyword only."""
    place = f"{section}.{name}" if section else name
    try:
        load_settings({section: {name: None}} if section else {name: None}, {})
        told = caplog.messages[0]
    except ConfigError as exc:
        told = str(exc)
    expected = {"cache": " is not a setting", "model_list": ": must be a list"}.get(name, ": expected a value")
    assert told.startswith(f"{place}{expected}")


@pytest.mark.parametrize(
    ("content", "message"),
    [tuple("".join(code(cell)) for cell in row) for row in table(ROOT / "docs" / "configuration.md", "in `gate.yaml`")],
)
def test_a_mistake_looks_as_the_page_says(content, message, tmp_path, monkeypatch, caplog):
    """A configuration with a mistake, or with something to warn of, is told by the line quoted."""
    monkeypatch.chdir(tmp_path)
    Path("gate.yaml").write_text(content)
    try:
        load_settings("gate.yaml", {}, {})
        told = caplog.messages
    except ConfigError as exc:
        told = [str(exc)]
    assert told == [message]


def user_of(row):
    return " or ".join(f"`{name}`" for name in row.user_params) or "yes" if row.has_user else "no"


def test_the_endpoints_listed_are_those_there_are():
    """The tables of the page have the call types, names and paths of the gate's own."""
    inspected = [
        [f"`{row.call_type}`", f"`{row.litellm_call_type}`", f"`{row.suffix}`", user_of(row)]
        for row in ENDPOINTS
        if row.inspected
    ]
    assert [row[:4] for row in table(GUARDING, "call type")] == inspected
    by_policy: dict[str, list[str]] = {}
    for row in ENDPOINTS:
        if not row.inspected:
            by_policy.setdefault(row.call_type, []).append(f"`{row.suffix}`")
    listed = {code(name)[0]: paths.split(", ") for name, paths in table(GUARDING, "class")}
    assert listed == by_policy
    sockets = [
        [f"`{row.call_type}`", f"`{row.suffix}`", f"`{row.dialogue.CALL_TYPE}`"] for row in WEBSOCKETS if row.dialogue
    ]
    assert [row[:3] for row in table(GUARDING, "WebSocket class")] == sockets


def test_the_forwarders_arguments_are_those_listed():
    """Names and defaults are the class's own; what has no default is an empty cell."""
    listed = {
        code(name)[0]: yaml.safe_load("".join(code(default))) for name, default, _ in table(UPSTREAMS, "argument")
    }
    parameters = inspect.signature(Forwarder).parameters
    assert listed == {name: parameter.default or None for name, parameter in parameters.items()}


LONG = b" " * 98 + b"{}"

# For each status of the page's table: settings, and requests that are answered with it.
REFUSED: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "400": (
        {"max_json_values": 100},
        [
            {"body": b"[]"},
            {"body": b'{"a": "\xff"}'},
            {"body": b'{"a":' + b"[" * 128 + b"]" * 128 + b"}"},
            {"body": b'{"a": [' + b"1," * 100 + b"1]}"},
            {"body": b'{"stream": 1}'},
            {"body": b"{}", "headers": [("authorization", "a"), ("authorization", "b")]},
        ],
    ),
    "401": ({"master_key": "sk-1"}, [{"body": b"{}"}, {"body": b"{}", "headers": [("x-api-key", "sk-2")]}]),
    "403": (
        {"keys": [{"api_key": "sk-1", "models": "gpt-4o"}]},
        [
            {"body": b"{}", "path": "/v1/invocations", "headers": [("x-api-key", "sk-1")]},
            {"body": b'{"model": "gpt-4"}', "headers": [("x-api-key", "sk-1")]},
        ],
    ),
    "408": ({"body_timeout": 0.01}, [{"messages": [{"type": "http.request", "body": b"{", "more_body": True}]}]),
    "413": (
        {"max_body_bytes": 99},
        [{"body": LONG}, {"body": gzip.compress(LONG), "headers": [("content-encoding", "gzip")]}],
    ),
    "415": (
        {},
        [{"body": b"{}", "headers": [pair]} for pair in (("content-type", "text/plain"), ("content-encoding", "br"))],
    ),
}


def test_the_statuses_listed_are_those_tested():
    """The table of the page has no status that no request is tried for."""
    assert [status for status, _ in table(GUARDING, "status")] == list(REFUSED)


@pytest.mark.anyio
@pytest.mark.parametrize("status", REFUSED)
async def test_a_status_listed_is_answered(status):
    """The requests that the page names are refused with it, and do not reach the app."""
    settings, requests = REFUSED[status]
    app = Upstream()
    gate = LLMGate(app, **settings)
    answers = [await Request(**copy.deepcopy(request)).to(gate) for request in requests]
    assert [answer.status for answer in answers] == [int(status)] * len(requests)
    assert app.calls == []


async def _mirror(scope, receive, send):
    request = StarletteRequest(scope, receive)
    told = {name: request.headers.get(name) for name in ("content-type", "x-extra", "accept")}
    response = JSONResponse({"method": request.method, **told, "body": (await request.body()).decode()})
    await response(scope, receive, send)


@pytest.mark.parametrize(
    "arguments", [[], ["-i", "--data", '{"a": "b c"}', "-H", "x-extra: 1"], ["-H", "content-type: x/y", "-d", "é"]]
)
def test_the_stand_in_for_curl_sends_the_same(arguments):
    """Without curl, what the pages say is sent all the same."""
    require("curl")
    with serve(_mirror) as url:
        real, other = (
            re.sub("(?m)^date:.*\n", "", send([url, *arguments]).replace("\r\n", "\n")).lower()
            for send in (real_curl, stand_in_curl)
        )
    assert real == other


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": "…"}, {"a": [1]}, True),
        ({"a": "x-…"}, {"a": "x-1"}, True),
        ({"a": "x-…"}, {"a": "y-1"}, False),
        ({"created": 0}, {"created": 17}, True),
        ({"created": 0}, {"created": "17"}, False),
        ({"other": 0}, {"other": 17}, False),
        ([1, "…"], [1, 2], True),
        ([1], [1, 2], False),
    ],
)
def test_answers_are_compared(expected, found, agree):
    """Only what a page leaves open may differ."""
    assert same(expected, found) is agree


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a …\n", "a b c\n", True),
        ("a …\n", "a b\nc\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n…\nd\n", "b\nd\n", False),
    ],
)
def test_texts_are_compared(expected, found, agree):
    """A line of dots stands for lines, dots in a line for a part of it."""
    assert matches(expected, found) is agree


def test_the_urls_of_a_redis_are_what_the_page_says():
    kinds = {"redis": "server", "redis+cluster": "cluster", "redis+sentinel": "sentinel"}
    for url, _ in table(ROOT / "docs" / "scaling.md", "`redis_url`"):
        (quoted,) = code(url)
        assert from_url(quoted).kind == kinds[quoted.partition("://")[0]]
