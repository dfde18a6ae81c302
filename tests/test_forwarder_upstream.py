from __future__ import annotations

import pytest

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.forwarder.upstream import Base, Upstream, asked_path

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h", CHAT, "http://h/v1/chat/completions"),
        ("http://h/", CHAT, "http://h/v1/chat/completions"),
        ("http://h:8000", "/chat/completions", "http://h:8000/chat/completions"),
        ("https://api.openai.com/v1", CHAT, "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", CHAT, "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1", "/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://h/openai/v1", "/api/v1/embeddings", "https://h/openai/v1/embeddings"),
        ("https://h/api/v1", "/openai/v1/embeddings", "https://h/api/v1/embeddings"),
        ("https://h/v1", "/v1", "https://h/v1"),
        ("https://h/v1", "/v1/", "https://h/v1/"),
        ("https://h/v1", "/v1x/models", "https://h/v1/v1x/models"),
        ("https://h/v1", "", "https://h/v1"),
        ("https://h/v1", "/openai/deployments/d/chat/completions", "https://h/v1/openai/deployments/d/chat/completions"),
        ("https://h/v1", "/engines/m/completions", "https://h/v1/engines/m/completions"),
        ("https://h/a%20b", "/v1/x", "https://h/a%20b/x"),
        ("http://h", "/v1/models/a b?c#d%e é", "http://h/v1/models/a%20b%3Fc%23d%25e%20%C3%A9"),
        ("http://[::1]:80", "/v1//x", "http://[::1]:80/v1//x"),
        ("http://h/v1", "/v1//evil/x", "http://h/v1//evil/x"),
        ("http://h/v1", "/models/org/name:free@1", "http://h/v1/models/org/name:free@1"),
    ],
)  # fmt: skip
def test_path_stands_under_the_base(base, path, url):
    """A known API prefix is dropped where the base has a path, and the rest is quoted again."""
    assert Base.parse(base).url(asked_path({"path": path}), b"") == url


@pytest.mark.parametrize(
    ("query", "on_the_wire"),
    [
        (b"", ""),
        (b"api-version=2024-10-21&x=%41", "?api-version=2024-10-21&x=%41"),
        (b"a=b?c/d'\"", "?a=b?c/d'\""),
        (b"a=\xff #\n", "?a=%FF%20%23%0A"),
    ],
)
def test_query_is_kept(query, on_the_wire):
    """Escapes stay as they are; what can't stand in a query is quoted."""
    assert Base.parse("http://h/v1").url("/v1/x", query) == f"http://h/v1/x{on_the_wire}"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "/..",
        "/v1/../admin",
        "/v1/./chat",
        "/v1/..;/admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E%2E%2Fadmin",
        "//evil/v1/chat/completions",
        "http://evil/v1/chat/completions",
        "/v1\\..\\admin",
        "/v1/%5Cadmin",
        "/v1/chat/completions\n",
        "/v1/chat\x00",
        "/v1/chat%0d%0ax: y",
        "/v1/chat\x7f",
        "/v1/chat\ud800",
    ],
)
def test_path_that_could_lead_away_is_refused(path):
    """No path leaves the base, today or after one more unquoting behind it."""
    with pytest.raises(GateError, match="can't be forwarded") as caught:
        asked_path({"path": path})
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("path", "root_path", "asked"),
    [
        ("/llm/v1/models", "/llm", "/v1/models"),
        ("/llm/v1/models", "/llm/", "/v1/models"),
        ("/llm", "/llm", ""),
        ("/llmx/v1", "/llm", "/llmx/v1"),
        ("/v1/models", "/llm", "/v1/models"),
        ("/v1/models", "", "/v1/models"),
    ],
)
def test_mount_path_is_no_part_of_the_asked_path(path, root_path, asked):
    """The root path is taken off as whole segments, where it stands."""
    assert asked_path({"path": path, "root_path": root_path}) == asked


def test_long_url_is_refused():
    """A target longer than client libraries take is a 414, not a crash."""
    with pytest.raises(GateError, match="too long") as caught:
        Base.parse("http://h").url("/" + "é" * 10_000, b"")
    assert caught.value.status_code == 414


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "/v1",
        "ftp://h",
        "http://",
        "http://:80",
        "http://h/v1?x=1",
        "http://h/?",
        "http://h/#f",
        "http://h:x/v1",
        "http://h:99999",
        "http://h /v1",
        "http://h\n/v1",
        "http://[::1",
    ],
)
def test_wrong_base_is_an_error(url):
    """A base that is no plain http(s) URL is found out at the start."""
    with pytest.raises(ValueError, match=r"must|port|Invalid"):
        Base.parse(url)


def test_credentials_do_not_show():
    """An upstream can be printed without its key."""
    upstream = Upstream(Base("http://h", ""), ((b"authorization", b"Bearer sk-secret"),), 1.0)
    assert "sk-secret" not in repr(upstream)
