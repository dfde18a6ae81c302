"""The benchmarks' servers come up, are asked, counted and ended; nothing of them stays."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute

from asgi_llm_gate.config import load_settings
from asgi_llm_gate.litellm_names import importable
from benchmarks import peers, served
from benchmarks.load import LoadError, Measured, Target, ask, load, request
from benchmarks.peers import InstallError, LiteLLM, Portkey, install_litellm, install_portkey
from benchmarks.processes import StartError, cpu_clock, free_port, pinned, serving, uninterrupted
from benchmarks.served import Job, check, cores, jobs, measure_served
from benchmarks.subjects import Running, nginx_config, write_config
from benchmarks.upstream import CHUNKS

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Busy\r\ncontent-length: 3\r\n\r\nno!"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def answering(answer: bytes, *, piece: int = 10_000, close: bool = False):
    """Serve the same bytes for each request of 3 bytes, in pieces, and give where."""

    async def serve(stream):
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.receive(3)
                while not close:
                    for start in range(0, len(answer), piece):
                        await stream.send(answer[start : start + piece])
                    await stream.receive(3)
                await stream.send(answer)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, serve)
        yield Target(listener.extra(SocketAttribute.local_port), b"ask")
        group.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [OK, CHUNKED])
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_answers_are_counted_however_they_are_framed(answer, piece):
    """The rate is of whole answers, and the share of a core is of the time they took."""
    clock = iter([10.0, 12.0])
    async with answering(answer, piece=piece) as target:
        assert await ask(target) == b"hi"
        measured = await load(target, connections=3, seconds=0.01, cpu=lambda: next(clock), warm_up=0)
    assert measured.rate > 0
    assert 0 < measured.busy <= 2 / 0.01


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "close", "why"),
    [(REFUSED, False, "status 503"), (OK, True, "lost"), (b"", True, "lost"), (b"nonsense\r\n\r\n", False, "not HTTP")],
)
async def test_what_is_no_good_answer_ends_the_load(answer, close, why):
    """Nothing is measured of a server that refuses, hangs up or talks nonsense."""
    async with answering(answer, close=close) as target:
        with pytest.raises(LoadError, match=why):
            await load(target, connections=2, seconds=10, cpu=lambda: 0, warm_up=10)


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "why"), [(REFUSED, "status 503: b'no!'"), (b"nonsense\r\n\r\n", "not HTTP")])
async def test_a_refusal_is_shown_as_it_was_said(answer, why):
    """Who looks for the reason finds it."""
    async with answering(answer) as target:
        with pytest.raises(LoadError, match=why):
            await ask(target)


@pytest.mark.anyio
async def test_patience_has_an_end(monkeypatch):
    """A server that says nothing is not waited for without end."""
    monkeypatch.setattr("benchmarks.load._PATIENCE", 0)
    async with answering(b"") as target:
        with pytest.raises(LoadError, match="no answer"):
            await ask(target)
        with pytest.raises(LoadError, match="no answers"):
            await load(target, connections=1, seconds=0, cpu=lambda: 0, warm_up=0)


def test_a_request_has_its_headers_and_its_length():
    """The server gets one whole request."""
    head, _, body = request("/a", b"{}", x_key="1").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /a HTTP/1.1",
        b"host: 127.0.0.1",
        b"content-type: application/json",
        b"x-key: 1",
        b"content-length: 2",
    ]
    assert body == b"{}"


def http_server(port):
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


def test_a_server_runs_on_its_core_and_ends_with_its_block():
    """Also where the block fails: nothing of the server is left."""
    core, port = min(os.sched_getaffinity(0)), free_port()
    with pytest.raises(KeyError), serving(http_server(port), port, core=core) as pid:  # noqa: PT012  # the block is it
        assert os.sched_getaffinity(pid) == {core}
        assert cpu_clock(pid)() >= 0
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
        raise KeyError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("code", "patience", "why"),
    [
        ("print('out of order'); exit(3)", 30, "status 3\nout of order"),
        ("input()", 30, "status 1"),
        ("while True: 1", 0, "not listen"),
    ],
)
def test_a_server_that_does_not_come_up_says_why(code, patience, why):
    """What it wrote is in the error, and it is ended."""
    core = min(os.sched_getaffinity(0))
    server = serving([sys.executable, "-c", code], free_port(), core=core, patience=patience)
    with ExitStack() as stack, pytest.raises(StartError, match=why):
        stack.enter_context(server)


def test_a_pinned_process_gets_its_cores_back():
    """One core within the block, those of before after it."""
    before = os.sched_getaffinity(0)
    with pinned(max(before)):
        assert os.sched_getaffinity(0) == {max(before)}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(monkeypatch, number):
    """What is begun is done first, and then the interrupt has its way."""
    before = signal.signal(number, signal.default_int_handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012  # the block is it
            signal.raise_signal(number)
            done.append("all of it")
        assert done == ["all of it"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_each_server_answers_with_what_the_upstream_says():
    """One short round of all that is measured, on real servers: each has a rate and a cost."""
    measured, other = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    short = [replace(job, seconds=0.0, connections=1) for job in jobs()]
    measure_served(short, 1, measured, other)
    assert [job.name for job in short if not job.rate > 0 or job.cost < 0] == []
    assert short[1].over(short[0]) == short[1].rate / short[0].rate


STREAM = b" parcel" * CHUNKS


@pytest.mark.parametrize(
    ("streamed", "answer", "good"),
    [
        (False, b"from our warehouse", True),
        (False, b"{}", False),
        (True, STREAM, True),
        (True, STREAM.replace(b"parcel", b"package"), True),
        (True, STREAM[7:], False),
        (True, b"warehouse", False),
    ],
)
def test_only_the_upstreams_answer_counts(streamed, answer, good):
    """A server that answers with an error quickly is not fast."""
    job = Job("any", peers.LiteLLM(Path("x"), "rewrite"), streamed=streamed)
    if good:
        check(job, answer)
    else:
        with pytest.raises(LoadError, match="not the upstream's"):
            check(job, answer)


def test_a_server_that_answers_wrongly_is_named(monkeypatch):
    """Of several, the reader knows which."""
    monkeypatch.setattr(served, "check", lambda job, answer: check(replace(job, streamed=True), answer))
    core = min(os.sched_getaffinity(0))
    with pytest.raises(LoadError, match=f"{served.HOSTED}: not the upstream's"):
        measure_served(jobs()[:1], 1, core, core)


@pytest.mark.parametrize(("allowed", "chosen"), [({3}, None), ({2, 5}, (2, 5)), ({0, 1, 2, 3}, (0, 3))])
def test_two_cores_are_chosen(monkeypatch, allowed, chosen):
    """With one, what is measured and what measures would be in each other's way."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    assert cores() == chosen


def test_where_cores_cannot_be_chosen_none_are(monkeypatch):
    """Not every system has such a call."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() is None


def test_rounds_are_compared_each_to_itself():
    """A slow moment of the machine slows both down, and counts for neither."""
    fast, slow = Job("fast", None), Job("slow", None)
    for speed in (1.0, 0.1, 0.5):
        fast.add(Measured(1000 * speed, 0.5 * speed))
        slow.add(Measured(100 * speed, speed))
    assert (fast.over(slow), fast.rate, slow.cost) == pytest.approx((10, 500, 0.01))


def test_nginx_is_configured_within_its_folder():
    """It listens on this machine alone, writes only into its folder, and keeps connections to the upstream."""
    config = nginx_config("/folder", 81, 82)
    assert "listen 127.0.0.1:81;" in config
    assert "server 127.0.0.1:82; keepalive" in config
    paths = [line.split()[1] for line in config.splitlines() if "_path" in line or line.startswith("pid")]
    assert [path for path in paths if not path.startswith("/folder")] == []
    assert len(paths) == 6


def test_the_configuration_is_one_that_the_gate_serves(tmp_path):
    """The gate and LiteLLM's proxy get the same file, with a handler written for the latter."""
    file = write_config(str(tmp_path), "rewrite_text", 82)
    with importable():
        settings = load_settings(file, {})
    assert [entry["model_name"] for entry in settings.model_list] == ["gpt-4o", "gpt-4o-mini"]
    (callback,) = settings.callbacks
    assert type(callback).__name__ == "RewriteText"


def script(path: Path, code: str) -> Path:
    """Write a program in Python."""
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


# Serves files beside the configuration that it is given; the last argument with a digit at its end is the port.
FAKE = """
import http.server, re, sys, os
port = [int(m[1]) for a in sys.argv if (m := re.fullmatch(r"(?:--port=)?(\\d+)", a))][-1]
os.chdir(os.path.dirname(sys.argv[2]))
http.server.test(http.server.SimpleHTTPRequestHandler, port=port, bind="127.0.0.1")
"""


def test_litellms_proxy_is_given_the_configuration(tmp_path):
    """It finds the same handler and the same models."""
    with LiteLLM(script(tmp_path / "litellm", FAKE), "rewrite")(min(os.sched_getaffinity(0)), 82) as running:
        config = httpx.get(f"http://127.0.0.1:{running.port}/config.yaml").text
    assert "handler.rewrite" in config
    assert "http://127.0.0.1:82/v1" in config


def test_portkeys_gateway_is_told_its_upstream_by_each_call(tmp_path, monkeypatch):
    """It has no configuration: headers say where a call goes; and it listens on this machine alone."""
    script(tmp_path / "node", FAKE)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gateway = tmp_path / "portkey"
    (gateway / "a" / "b" / "c" / "d").mkdir(parents=True)
    (gateway / "loopback.cjs").write_text("listen")
    with Portkey(gateway / "a" / "b" / "c" / "d" / "start.js")(min(os.sched_getaffinity(0)), 82) as running:
        assert httpx.get(f"http://127.0.0.1:{running.port}/loopback.cjs").text == "listen"
    assert b"x-portkey-custom-host: http://127.0.0.1:82/v1\r\n" in running.target(streamed=True).request


def test_a_target_is_asked_for_streams_or_not():
    """The same path and headers, another body."""
    running = Running(1, 80)
    whole, streamed = (running.target(streamed=streamed).request for streamed in (False, True))
    assert (b'"stream":true' in whole, b'"stream":true' in streamed) == (False, True)
    assert whole.split(b"content-length")[0] == streamed.split(b"content-length")[0]


def test_gateways_are_installed_once(tmp_path, monkeypatch):
    """In a folder of the user's cache, by their own installers; what broke off is begun anew."""
    ran = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peers, "_run", lambda command: ran.append(Path(command[0]).name))
    monkeypatch.setattr(peers.shutil, "which", lambda name: f"/bin/{name}")
    folders = [peers.cache() / name for name in ("one", "other")]
    folders[0].mkdir(parents=True)
    for _ in range(2):
        assert install_litellm(folders[0]) == folders[0] / "bin" / "litellm"
        assert install_portkey(folders[1]).is_relative_to(tmp_path / "asgi-llm-gate" / "other")
    assert ran == [Path(sys.executable).name, "pip", "npm"]
    assert "127.0.0.1" in (folders[1] / "loopback.cjs").read_text()


def test_without_node_there_is_no_portkey(tmp_path, monkeypatch):
    """The reason is told."""
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    with pytest.raises(InstallError, match="node and npm"):
        install_portkey(tmp_path)


def test_an_installer_that_fails_is_quoted(capsys):
    """What it said is the reason."""
    with pytest.raises(InstallError, match="no such release"):
        peers._run([sys.executable, "-c", "print('no such release'); exit(1)"])
    assert "no such release" in capsys.readouterr().err
