"""The table of endpoints: the only place that knows a path.

A call is known by the end of its path, whatever stands before it: a mount, ``/v1``, ``/api/v1``, an Azure deployment.
Paths written so that a router and the gate might read them differently are refused, never passed on.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.shapes import (
    Dialogue,
    Json,
    Shape,
    chat,
    plain,
    realtime,
    response_input,
    responses,
    responses_socket,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The policies of an endpoint class. Also an app's own path may pass without a look.
PASS = "pass"  # noqa: S105  # a policy, not a password
INSPECT = "inspect"
DENY = "deny"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of LLM call.

    Attributes:
        suffix: How its paths end; ``{}`` stands for one segment.
        call_type: The word that hooks are given.
        litellm_call_type: LiteLLM's present word for the same.
        shape: Its bodies' shape.
        has_user: OpenAI's endpoint takes a `user`.
        inspected: The gate reads its calls. If not, a policy refuses or passes them.
        general: The suffix is a common word: it counts at the root and after an API prefix only.
        dialogue: The events of its WebSocket; None over HTTP.
    """

    suffix: str
    call_type: str
    litellm_call_type: str
    shape: Shape = plain
    has_user: bool = False
    inspected: bool = True
    general: bool = False
    dialogue: Dialogue | None = None

    def policy(self, policies: Mapping[str, str]) -> str:
        """Return what becomes of its calls where some classes have a policy."""
        usual = INSPECT if self.inspected else DENY
        chosen = policies.get(self.call_type, usual)
        return usual if chosen == INSPECT else chosen


def _inspected(suffix: str, call_type: str, litellm: str, shape: Shape, *, has_user: bool) -> Endpoint:
    return Endpoint(suffix, call_type, litellm, shape, has_user=has_user)


def _by_policy(
    call_type: str, litellm: str, *suffixes: str, shape: Shape = plain, general: bool = False
) -> list[Endpoint]:
    return [Endpoint(suffix, call_type, litellm, shape, inspected=False, general=general) for suffix in suffixes]


# OpenAI's endpoints that take a body, and those of others that serve the same models (Cohere's rerank, Anthropic's
# messages, vLLM's own); source: OpenAI's specification 2.3.0 and the servers' documentation.
ENDPOINTS: tuple[Endpoint, ...] = (
    _inspected("/chat/completions", "completion", "acompletion", chat, has_user=True),
    _inspected("/completions", "text_completion", "atext_completion", text, has_user=True),
    _inspected("/embeddings", "embeddings", "aembedding", plain, has_user=True),
    _inspected("/moderations", "moderation", "moderation", plain, has_user=False),
    _inspected("/images/generations", "image_generation", "image_generation", plain, has_user=True),
    _inspected("/responses", "responses", "aresponses", responses, has_user=True),
    *(
        _inspected(f"/responses/{work}", f"responses_{work}", f"responses_{work}", response_input, has_user=False)
        for work in ("input_tokens", "compact")
    ),
    *_by_policy("completion_batch", "acompletion", "/chat/completions/batch"),
    *_by_policy("image_edit", "aimage_edit", "/images/edits"),
    *_by_policy("image_variation", "aimage_variation", "/images/variations"),
    *_by_policy("audio_transcription", "transcription", "/audio/transcriptions"),
    *_by_policy("audio_translation", "translation", "/audio/translations"),
    *_by_policy("audio_speech", "aspeech", "/audio/speech"),
    *_by_policy("rerank", "rerank", "/rerank"),
    *_by_policy("anthropic_messages", "anthropic_messages", "/v1/messages", "/v1/messages/count_tokens"),
    *_by_policy("conversations", "conversations", "/conversations", "/conversations/{}/items", general=True),
    *_by_policy("files", "acreate_file", "/files", general=True),
    *_by_policy("uploads", "acreate_upload", "/uploads", "/uploads/{}/parts", "/uploads/{}/complete", general=True),
    *_by_policy("batches", "acreate_batch", "/batches", general=True),
    *_by_policy(
        "assistants",
        "assistants",
        "/assistants",
        "/threads",
        "/threads/runs",
        "/threads/{}/runs",
        "/threads/{}/messages",
        "/threads/{}/runs/{}/submit_tool_outputs",
        general=True,
    ),
    *_by_policy(
        "realtime",
        "_arealtime",
        "/realtime/client_secrets",
        "/realtime/sessions",
        "/realtime/calls",
        shape=realtime,
        general=True,
    ),
    *_by_policy("vector_store_search", "vector_store_search", "/vector_stores/{}/search"),
    *_by_policy("invocations", "invocations", "/invocations", general=True),
)

# The WebSockets that carry LLM calls.
WEBSOCKETS: tuple[Endpoint, ...] = (
    Endpoint("/realtime", "realtime", "_arealtime", realtime, general=True, dialogue=realtime),
    Endpoint(
        "/responses", "responses_ws", "_aresponses_websocket", responses, has_user=True, dialogue=responses_socket
    ),
)

# What may stand before a suffix that is a common word: nothing, or a path that ends like an API's root.
_API_PREFIX = re.compile(r"(?:.*/)?(?:v\d+\w*|openai|api)", re.IGNORECASE | re.DOTALL)

# What no client of an LLM API writes in a path: control, space and non-ASCII characters, `\`, `;`, what is left
# of an escape or of a URL's other parts, and empty or dotted segments.
_ODD = re.compile(r"[^!-~]|[\\;%#?]|//|/\.\.?(?:/|$)")

# How often over an escape may be escaped and still be seen through.
_MAX_UNQUOTE = 5


class Routes:
    """The table made ready for one gate: an app's own paths added, one look-up to pass what is no LLM call."""

    def __init__(self, endpoints: Iterable[Endpoint] = ENDPOINTS, paths: Mapping[str, str] | None = None) -> None:
        own = [_own_path(suffix, call_type) for suffix, call_type in (paths or {}).items()]
        self._by_last_segment: dict[str, list[Endpoint]] = {}
        for endpoint in sorted([*own, *endpoints], key=lambda row: -row.suffix.count("/")):
            self._by_last_segment.setdefault(endpoint.suffix.rpartition("/")[2], []).append(endpoint)

    def find(self, path: str, root_path: str = "") -> Endpoint | None:
        """Return the endpoint that a path names, or None.

        Args:
            path: The scope's `path`, decoded.
            root_path: The scope's `root_path`; what follows it counts as a path too.

        Raises:
            GateError: 400, the path is odd, and cleaned up it names an endpoint.
        """
        endpoint = self._find(path)
        if endpoint is None and root_path and path.startswith(root_path):
            endpoint = self._find(path.removeprefix(root_path))
        return endpoint

    def _find(self, path: str) -> Endpoint | None:
        if not _ODD.search(path):
            return self._match(path)
        if any(self._match(cleaned) for cleaned in _cleanings(path)):
            raise GateError(400, "The path is not in its plain form", code="invalid_path")
        return None

    def _match(self, path: str) -> Endpoint | None:
        path = path.removesuffix("/").lower()
        for row in self._by_last_segment.get(path.rpartition("/")[2], ()):
            if _fits(row, path):
                return None if row.call_type == PASS else row
        return None


def _fits(endpoint: Endpoint, path: str) -> bool:
    if "{}" not in endpoint.suffix:
        if not path.endswith(endpoint.suffix):
            return False
        prefix = path.removesuffix(endpoint.suffix)
    else:
        wanted = endpoint.suffix.split("/")[1:]
        prefix, *found = path.rsplit("/", len(wanted))
        if len(found) != len(wanted) or any(want not in {"{}", have} for want, have in zip(wanted, found, strict=True)):
            return False
    return not endpoint.general or not prefix or bool(_API_PREFIX.fullmatch(prefix))


def _cleanings(path: str) -> Iterable[str]:
    """Yield the plain paths that some router, proxy or URL library might read an odd one as."""
    for _ in range(_MAX_UNQUOTE):
        path = unquote(path)
    path = unicodedata.normalize("NFKC", path)
    path = "".join(char for char in path if "!" <= char <= "~").replace("\\", "/")
    for cut in (path, re.split(r"[?#]", path, maxsplit=1)[0]):
        segments: list[str] = []
        for segment in re.sub(r";[^/]*", "", cut).split("/"):
            if segment == ".." and segments:
                segments.pop()
            elif segment not in {"", ".", ".."}:
                segments.append(segment)
        yield "/" + "/".join(segments)


def _own_path(suffix: str, call_type: str) -> Endpoint:
    if call_type == PASS:
        return Endpoint(suffix.lower(), PASS, PASS, inspected=False)
    known = by_call_type(call_type)
    if known is None:
        raise ValueError(f"unknown call type {call_type!r}")
    inspected = known.inspected and known.dialogue is None
    return replace(known, suffix=suffix.lower(), general=False, inspected=inspected, dialogue=None)


def by_call_type(call_type: str) -> Endpoint | None:
    """Return the endpoint of a call type, under any of its names: ours, LiteLLM's past and present."""
    return _BY_CALL_TYPE.get(call_type)


def get_formatted_prompt(data: Json, call_type: Any = "completion") -> str:
    """Return the text of a request that the model reads, a message, prompt or input a line.

    Args:
        data: The request's body, as hooks are given it.
        call_type: The call's type under any name, LiteLLM's included; for one not known, every field that carries
            text on some endpoint is read.
    """
    endpoint = by_call_type(str(getattr(call_type, "value", call_type)))
    if endpoint is not None and (endpoint.inspected or endpoint.shape is not plain):
        return endpoint.shape.prompt_text(data)
    return "\n".join(filter(None, (chat.prompt_text(data), plain.prompt_text(data))))


def _names(endpoint: Endpoint) -> set[str]:
    """Return an endpoint's call type and LiteLLM's, each with and without the `a` of its asynchronous spelling."""
    names = {endpoint.call_type, endpoint.litellm_call_type}
    return names | {name[1:] for name in names if name.startswith("a")} | {f"a{name}" for name in names}


_BY_CALL_TYPE: Mapping[str, Endpoint] = {
    name: endpoint for endpoint in reversed(ENDPOINTS + WEBSOCKETS) for name in _names(endpoint)
}
