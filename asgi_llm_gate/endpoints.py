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

from asgi_llm_gate.errors import ErrorBody, GateError, error_body
from asgi_llm_gate.shapes import (
    Dialogue,
    Json,
    Shape,
    chat,
    chat_batch,
    message_errors,
    message_input,
    messages,
    plain,
    realtime,
    response_input,
    responses,
    responses_socket,
    text,
    threads,
    transcription,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The policies of an endpoint class. Also an app's own path may pass without a look.
PASS = "pass"  # noqa: S105  # a policy, not a password
DENY = "deny"
INSPECT = "inspect"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of LLM call.

    Attributes:
        suffix: How its paths end; ``{}`` stands for one segment.
        call_type: The word that hooks are given.
        litellm_call_type: LiteLLM's present word for the same.
        shape: Its bodies' shape.
        has_user: The endpoint, as its API documents it, takes a `user` or what stands for one.
        user_params: The fields that say who the user is, where the endpoint has its own; dotted for nested ones.
        error_body: Makes the body of its errors.
        inspected: The gate reads its calls. If not, a policy refuses or passes them.
        takes_json: Its bodies may be JSON.
        takes_form: Its bodies may be forms (``multipart/form-data``).
        answers_text: It answers with bare text where the request's `response_format` says so.
        carries_calls: What is sent there may be a file of calls, so that it has a policy though the gate reads it.
        general: The suffix is a common word: it counts at the root and after an API prefix only.
        dialogue: The events of its WebSocket; None over HTTP.
        model: Where its bodies name the model that a call runs, dotted for a nested field; None where it runs none.
    """

    suffix: str
    call_type: str
    litellm_call_type: str
    shape: Shape = plain
    has_user: bool = False
    user_params: tuple[str, ...] = ()
    error_body: ErrorBody = error_body
    inspected: bool = True
    general: bool = False
    takes_json: bool = True
    takes_form: bool = False
    answers_text: bool = False
    carries_calls: bool = False
    dialogue: Dialogue | None = None
    model: str | None = "model"

    @property
    def has_policy(self) -> bool:
        """Settings say what becomes of its calls."""
        return not self.inspected or self.carries_calls or self.dialogue is not None

    def policy(self, policies: Mapping[str, str]) -> str:
        """Return what becomes of its calls where some classes have a policy: ``inspect``, ``pass`` or ``deny``.

        A class may have endpoints that the gate can look into, and others.
        """
        usual = INSPECT if self.inspected else DENY
        chosen = policies.get(self.call_type, usual)
        return usual if chosen == INSPECT else chosen


def not_inspected(endpoint: Endpoint) -> GateError:
    """Make the 403 of an endpoint that no hook would look into; `policies` can let its calls pass."""
    message = f"This gate does not let {endpoint.call_type} calls through, because no hook would see what is in them"
    return GateError(403, message, code="endpoint_not_inspected")


def _inspected(
    suffix: str,
    call_type: str,
    litellm: str,
    shape: Shape,
    *,
    has_user: bool,
    general: bool = False,
    model: str | None = "model",
) -> Endpoint:
    return Endpoint(suffix, call_type, litellm, shape, has_user=has_user, general=general, model=model)


def _anthropic(suffix: str, call_type: str, shape: Shape, *, has_user: bool) -> Endpoint:
    errors = message_errors.error_body
    user = ("metadata.user_id",)
    return Endpoint(suffix, call_type, call_type, shape, has_user=has_user, user_params=user, error_body=errors)


def _form(suffix: str, call_type: str, litellm: str, *, has_user: bool, takes_json: bool = False) -> Endpoint:
    return Endpoint(suffix, call_type, litellm, has_user=has_user, takes_form=True, takes_json=takes_json)


def _speech(work: str) -> Endpoint:
    suffix, call_type = f"/audio/{work}s", f"audio_{work}"
    return Endpoint(suffix, call_type, work, transcription, takes_form=True, takes_json=False, answers_text=True)


def _upload(suffix: str, call_type: str, litellm: str, *, form: bool) -> Endpoint:
    return Endpoint(
        suffix, call_type, litellm, takes_form=form, takes_json=not form, carries_calls=True, general=True, model=None
    )


def _by_policy(call_type: str, litellm: str, *suffixes: str, general: bool = False) -> list[Endpoint]:
    return [Endpoint(suffix, call_type, litellm, inspected=False, general=general) for suffix in suffixes]


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
    _inspected("/chat/completions/batch", "completion_batch", "acompletion", chat_batch, has_user=True),
    _anthropic("/v1/messages", "anthropic_messages", messages, has_user=True),
    _anthropic("/v1/messages/count_tokens", "anthropic_messages_count_tokens", message_input, has_user=False),
    _form("/images/edits", "image_edit", "aimage_edit", has_user=True, takes_json=True),
    _form("/images/variations", "image_variation", "aimage_variation", has_user=True),
    _speech("transcription"),
    _speech("translation"),
    _inspected("/audio/speech", "audio_speech", "aspeech", plain, has_user=False),
    _inspected("/rerank", "rerank", "arerank", plain, has_user=False),
    *(
        _inspected(suffix, "conversations", "conversations", response_input, has_user=False, general=True, model=None)
        for suffix in ("/conversations", "/conversations/{}/items")
    ),
    _upload("/files", "files", "acreate_file", form=True),
    _upload("/uploads", "uploads", "acreate_upload", form=False),
    _upload("/uploads/{}/parts", "uploads", "acreate_upload", form=True),
    _upload("/uploads/{}/complete", "uploads", "acreate_upload", form=False),
    _upload("/batches", "batches", "acreate_batch", form=False),
    *(
        _inspected(suffix, "assistants", "assistants", threads, has_user=False, general=True, model=model)
        for suffix, model in (
            ("/assistants", "model"),
            ("/threads", None),
            ("/threads/runs", "model"),
            ("/threads/{}/runs", "model"),
            ("/threads/{}/messages", None),
            ("/threads/{}/runs/{}/submit_tool_outputs", None),
        )
    ),
    *(
        _inspected(suffix, "realtime", "_arealtime", realtime, has_user=False, general=True, model=model)
        for suffix, model in (("/realtime/client_secrets", "session.model"), ("/realtime/sessions", "model"))
    ),
    *_by_policy("realtime", "_arealtime", "/realtime/calls", general=True),
    _inspected(
        "/vector_stores/{}/search", "vector_store_search", "vector_store_search", plain, has_user=False, model=None
    ),
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

# A path of some API, known or not.
_OF_API = re.compile(r"(?:^|/)(?:v\d+\w*|openai|api)/", re.IGNORECASE)

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
        rows = sorted([*own, *endpoints], key=lambda row: -row.suffix.count("/"))
        for endpoint in rows:
            self._by_last_segment.setdefault(endpoint.suffix.rpartition("/")[2], []).append(endpoint)
        usual = [f"{prefix}{row.suffix}" for row in rows for prefix in ("", "/v1")]
        self._usual = {path: found for path in usual if not _ODD.search(path) and (found := self._match(path))}

    def find(self, path: str, root_path: str = "") -> Endpoint | None:
        """Return the endpoint that a path names, or None.

        Args:
            path: The scope's `path`, decoded.
            root_path: The scope's `root_path`; what follows it counts as a path too.

        Raises:
            GateError: 400, the path is odd, and cleaned up it names an endpoint.
        """
        endpoint = self._usual.get(path) or self._find(path)
        if endpoint is None and root_path and path.startswith(root_path):
            endpoint = self._find(path.removeprefix(root_path))
        return endpoint

    def is_unknown_api(self, path: str) -> bool:
        """Tell whether a path stands under an API's prefix and names nothing of the table, nor an own path."""
        return bool(_OF_API.search(path)) and not self.is_known(path)

    def is_known(self, path: str) -> bool:
        """Tell whether a path names anything of the table, or is an own path."""
        return self._row(path) is not None

    def _find(self, path: str) -> Endpoint | None:
        if not _ODD.search(path):
            return self._match(path)
        if any(self._match(cleaned) for cleaned in _cleanings(path)):
            raise GateError(400, "The path is not in its plain form", code="invalid_path")
        return None

    def _match(self, path: str) -> Endpoint | None:
        row = self._row(path)
        return None if row is not None and row.call_type == PASS else row

    def _row(self, path: str) -> Endpoint | None:
        path = path.removesuffix("/").lower()
        for row in self._by_last_segment.get(path.rpartition("/")[2], ()):
            if _fits(row, path):
                return row
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
