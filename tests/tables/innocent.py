"""Requests that are no LLM call, or none that a hook has to see, to an app with routes of its own.

Rows: name; method; path; headers; body.
"""

from __future__ import annotations

from typing import NamedTuple

JSON = [("content-type", "application/json")]
FORM = [("content-type", "application/x-www-form-urlencoded")]
PARTS = [("content-type", "multipart/form-data; boundary=x")]
UPLOAD = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\x00\xff\r\n--x--\r\n'


class Innocent(NamedTuple):
    name: str
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes


INNOCENT = [
    Innocent("the front page", "GET", "/", [("accept", "text/html"), ("cookie", "a=1"), ("cookie", "b=2")], b""),
    Innocent("a static file", "GET", "/static/app.js", [("if-none-match", '"x"'), ("range", "bytes=0-9")], b""),
    Innocent("a file with spaces", "GET", "/static/annual report 2025.pdf", [], b""),
    Innocent("a file in another alphabet", "GET", "/static/\u043e\u0442\u0447\u0451\u0442.pdf", [], b""),
    Innocent("a path escaped twice", "GET", "/wiki/100%25", [], b""),
    Innocent("a path with a semicolon", "GET", "/app;jsessionid=1/cart", [], b""),
    Innocent("a path with an empty segment", "GET", "/a//b", [], b""),
    Innocent("a path with dots", "GET", "/a/../b", [], b""),
    Innocent("a path with a backslash", "GET", "/a\\b", [], b""),
    Innocent("a path with a line end", "GET", "/a\n", [], b""),
    Innocent("health", "HEAD", "/health", [], b""),
    Innocent("metrics", "GET", "/metrics", [("accept-encoding", "gzip")], b""),
    Innocent("the models", "GET", "/v1/models", [("authorization", "Bearer x")], b""),
    Innocent("one model", "GET", "/v1/models/gpt-4o", [], b""),
    Innocent("a model to delete", "DELETE", "/v1/models/ft:gpt-4o:org", [], b""),
    Innocent("the files", "GET", "/v1/files", [], b""),
    Innocent("a file's content", "GET", "/v1/files/file_1/content", [], b""),
    Innocent("a stored completion", "GET", "/v1/chat/completions/chatcmpl_1", [], b""),
    Innocent("the stored completions", "GET", "/v1/chat/completions", [], b""),
    Innocent("a stored response", "GET", "/v1/responses/resp_1", [], b""),
    Innocent("a response to cancel", "POST", "/v1/responses/resp_1/cancel", JSON, b""),
    Innocent("a browser's question", "OPTIONS", "/v1/chat/completions", [("origin", "https://a.example")], b""),
    Innocent("a question for the head", "HEAD", "/v1/embeddings", [], b""),
    Innocent("the app's own JSON", "POST", "/v1/orders", JSON, b' {"user" : 1, "stream": "yes", "n": 1e999} '),
    Innocent("duplicate keys", "POST", "/orders", JSON, b'{"a":1,"a":2}'),
    Innocent("an array", "PUT", "/orders", JSON, b"[1,2]"),
    Innocent("NaN", "POST", "/orders", JSON, b"[NaN]"),
    Innocent("no JSON", "POST", "/orders", JSON, b'{"a":1,}'),
    Innocent("JSON in UTF-16", "POST", "/orders", JSON, '{"a":1}'.encode("utf-16")),
    Innocent("a deep nest", "POST", "/orders", JSON, b"[" * 2_000),
    Innocent("many values", "POST", "/orders", JSON, b"[" + b"0," * 600_000 + b"0]"),
    Innocent("more than 10 MB", "POST", "/orders", JSON, b" " * 10_000_001),
    Innocent("lines of JSON", "POST", "/logs", [("content-type", "application/x-ndjson")], b"{}\n{}\n"),
    Innocent("a form", "POST", "/login", FORM, b"user=a&user=b&password=%00"),
    Innocent("an upload", "POST", "/avatar", PARTS, UPLOAD),
    Innocent("a broken upload", "POST", "/avatar", PARTS, UPLOAD[:-6]),
    Innocent("bytes", "PATCH", "/upload", [("content-type", "application/offset+octet-stream")], bytes(range(256))),
    Innocent("a compressed body", "POST", "/logs", [("content-encoding", "br"), *JSON], b"\x0b\x05\x80{}\x03"),
    Innocent("two content types", "POST", "/orders", [*JSON, *FORM], b"{}"),
    Innocent("two keys", "GET", "/me", [("authorization", "a"), ("authorization", "b")], b""),
    Innocent("digests", "POST", "/orders", [*JSON, ("content-digest", "x"), ("te", "trailers")], b"{}"),
    Innocent("XML", "PROPFIND", "/dav", [("content-type", "text/xml"), ("depth", "1")], b"<propfind/>"),
    Innocent("a query with a body", "QUERY", "/search", JSON, b'{"q":1}'),
    Innocent("GraphQL", "POST", "/graphql", JSON, b'{"query":"{completions}"}'),
    Innocent("gRPC", "POST", "/llm.Chat/Complete", [("content-type", "application/grpc")], b"\0\0\0\0\0"),
    Innocent("a word of an endpoint's", "POST", "/shop/files", PARTS, UPLOAD),
    Innocent("half of an endpoint's path", "POST", "/chat", JSON, b'{"messages":[]}'),
    Innocent("an endpoint's path before another", "POST", "/v1/embeddings/cache", JSON, b"{"),
    Innocent("an endpoint's path without its slash", "POST", "/my-embeddings", JSON, b"{"),
]
