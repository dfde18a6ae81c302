"""Decoded paths of a POST with a body, where an app serves `/v1/chat/completions`, `/v1/embeddings` and
`/engines/{model}/chat/completions`, all of it once more under `/llm`, and `/v1/orders`.

Rows: path; root path; the gate's verdict: the call type of a call that hooks see, "refused" for 400, "passed" for what
is no LLM call; which frameworks run a handler with no gate before them.
"""

from __future__ import annotations

from typing import NamedTuple

SFMD, SF, NONE = "SFMD", "SFM", ""


class Path(NamedTuple):
    path: str
    root_path: str
    verdict: str
    bare: str


CHAT, EMBED = "completion", "embeddings"

PATHS = [
    # plain
    Path("/v1/chat/completions", "", CHAT, SFMD),
    Path("/v1/embeddings", "", EMBED, SFMD),
    Path("/engines/gpt-4/chat/completions", "", CHAT, SFMD),
    Path("/engines/ft:gpt-4:org::id/chat/completions", "", CHAT, SFMD),
    Path("/engines/meta-llama%2FLlama/chat/completions", "", "refused", SFMD),
    Path("/v1/orders", "", "passed", SFMD),
    Path("/v1/chat/completions/", "", CHAT, NONE),
    Path("/v1/chat/completions/x", "", "passed", NONE),
    Path("/v1/chat/completion", "", "passed", NONE),
    Path("/v1/chat", "", "passed", NONE),
    Path("/", "", "passed", NONE),
    Path("", "", "passed", NONE),
    Path("*", "", "passed", NONE),
    # served by none of the apps
    *(
        Path(path, "", call_type, NONE)
        for path, call_type in {
            "/v1/audio/speech": "audio_speech",
            "/v1/rerank": "rerank",
            "/v2/rerank": "rerank",
            "/v1/threads/thread_1/runs": "assistants",
            "/v1/threads/runs": "assistants",
            "/v1/threads/thread_1/messages": "assistants",
            "/v1/threads/thread_1/runs/run_1/submit_tool_outputs": "assistants",
            "/v1/assistants": "assistants",
            "/v1/conversations": "conversations",
            "/v1/realtime/client_secrets": "realtime",
            "/v1/realtime/sessions": "realtime",
            "/v1/conversations/conv_1/items": "conversations",
            "/v1/vector_stores/vs_1/search": "vector_store_search",
            "/v1/chat/completions/batch": "completion_batch",
        }.items()
    ),
    # an endpoint with others below it
    Path("/v1/responses", "", "responses", NONE),
    Path("/openai/responses", "", "responses", NONE),
    Path("/responses/", "", "responses", NONE),
    Path("/v1/responses/input_tokens", "", "responses_input_tokens", NONE),
    Path("/v1/responses/compact", "", "responses_compact", NONE),
    Path("/v1/responses/resp_1/cancel", "", "passed", NONE),
    # mounts and root paths
    Path("/llm/v1/chat/completions", "", CHAT, SFMD),
    Path("/llm/v1/chat/completions", "/llm", CHAT, SFMD),
    Path("/api/v1/chat/completions", "/api", CHAT, SFMD),
    Path("/v1/chat/completions", "/api", CHAT, SFMD),
    Path("/api/v1/chat/completions", "", CHAT, NONE),
    Path("/api/v1/embeddings", "/api/", EMBED, NONE),
    Path("/v1/chat/completions", "/v1", CHAT, NONE),
    Path("/v1/chat/completions", "/v1/chat/completions", CHAT, NONE),
    Path("/api/v1/orders", "/api", "passed", SFMD),
    # case
    Path("/V1/Chat/Completions", "", CHAT, NONE),
    Path("/v1/chat/COMPLETIONS", "", CHAT, NONE),
    # what stands at the end
    Path("/v1/chat/completions\n", "", "refused", SF),
    Path("/v1/embeddings\n", "", "refused", SF),
    Path("/v1/chat/completions\r", "", "refused", NONE),
    Path("/v1/chat/completions\0", "", "refused", NONE),
    Path("/v1/chat/completions\t", "", "refused", NONE),
    Path("/v1/chat/completions ", "", "refused", NONE),
    Path("/v1/chat/completions\x7f", "", "refused", NONE),
    Path("/v1/chat/completions\x85", "", "refused", NONE),
    Path("/v1/chat/completions\u2028", "", "refused", NONE),
    Path("/v1/chat/completions\u200b", "", "refused", NONE),
    Path("/v1/chat/completions\xa0", "", "refused", NONE),
    Path("/v1/chat/completions\ufeff", "", "refused", NONE),
    Path("/v1/chat/completions.", "", "passed", NONE),
    Path("/v1/chat/completions;x=1", "", "refused", NONE),
    Path("/v1/chat/completions;", "", "refused", NONE),
    Path("/v1/chat/completions?x=1", "", "refused", NONE),
    Path("/v1/chat/completions#/../y", "", "refused", NONE),
    Path("/v1/chat/completions%0A", "", "refused", NONE),
    Path("/v1/chat/completions%20", "", "refused", NONE),
    Path("/v1/chat/completions//", "", "refused", NONE),
    Path("/v1/chat/completions/.", "", "refused", NONE),
    Path("/v1/chat/completions/x/..", "", "refused", NONE),
    Path("/v1/chat/completions/;x/", "", "refused", NONE),
    # what stands before and between
    Path("//v1/chat/completions", "", "refused", NONE),
    Path("/v1//chat/completions", "", "refused", NONE),
    Path("/v1/chat//completions", "", "refused", NONE),
    Path("/./v1/chat/completions", "", "refused", NONE),
    Path("/v1/./chat/completions", "", "refused", NONE),
    Path("/v1/x/../chat/completions", "", "refused", NONE),
    Path("/../v1/chat/completions", "", "refused", NONE),
    Path("/v1;x=1/chat/completions", "", "refused", NONE),
    Path("/v1/chat;/completions", "", "refused", NONE),
    Path("/v1/chat/..;/chat/completions", "", "refused", NONE),
    Path("/v1\\chat\\completions", "", "refused", NONE),
    Path("\\v1\\chat\\completions", "", "refused", NONE),
    Path("/v1/chat%2Fcompletions", "", "refused", NONE),
    Path("/v1/chat%2fcompletions", "", "refused", NONE),
    Path("/v1/chat%252Fcompletions", "", "refused", NONE),
    Path("/v1/chat/completions%2525250A", "", "refused", NONE),
    Path("/v1/chat/%63ompletions", "", "refused", NONE),
    Path("/v1/%2e%2e/v1/embeddings", "", "refused", NONE),
    Path("/v1/chat\n/completions", "", "refused", NONE),
    Path("/engines/a b/chat/completions", "", "refused", SFMD),
    Path("/engines/\u00fc/chat/completions", "", "refused", SFMD),
    Path("/engines/a;b/chat/completions", "", "refused", SFMD),
    Path("http://evil.example/v1/chat/completions", "", "refused", NONE),
    Path("https:/v1/chat/completions", "", CHAT, NONE),
    Path("v1/chat/completions", "", CHAT, NONE),
    # letters that look alike
    Path("/v1/chat/\uff43\uff4f\uff4d\uff50\uff4c\uff45\uff54\uff49\uff4f\uff4e\uff53", "", "refused", NONE),
    Path("/v1\uff0fchat\uff0fcompletions", "", "refused", NONE),
    Path("/v1/chat/comp\u017fletions", "", "passed", NONE),
    Path("/v1/chat/completion\u017f", "", "refused", NONE),
    Path("/v1/chat/\u0441ompletions", "", "passed", NONE),
    # odd, but no LLM call whichever way it is read
    Path("/v1/orders\n", "", "passed", SF),
    Path("/v1/orders;x=1", "", "passed", NONE),
    Path("//v1/orders", "", "passed", NONE),
    Path("/caf\u00e9/men\u00fc", "", "passed", NONE),
    Path("/a b/../c", "", "passed", NONE),
    Path("/files/report%20one.pdf", "", "passed", NONE),
]

# Endpoints that no hook looks into yet, and common words that are none.
# Rows: path; "denied", or "passed".
UNINSPECTED = [
    ("/v1/batches", "denied"),
    ("/v1/realtime/calls", "denied"),
    ("/invocations", "denied"),
    ("/login", "passed"),
    ("/health", "passed"),
    ("/v1/models", "passed"),
    ("/v1/files/file_1", "passed"),
    ("/v1/uploads/upl_1/cancel", "passed"),
    ("/shop/files", "passed"),
    ("/mail/messages", "passed"),
    ("/survey/conversations", "passed"),
    ("/forum/threads", "passed"),
    ("/jobs/batches", "passed"),
]
