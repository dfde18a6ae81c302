"""An ASGI app of no framework: the gate before an upstream server, and one page beside it.

    asgi-llm-gate demo --port 4001                                  # stands in for OpenAI
    UPSTREAM_URL=http://127.0.0.1:4001/v1 uvicorn examples.bare_proxy:app
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

import os

from asgi_llm_gate import Forwarder, LLMGate
from examples.handler import Handler

gate = LLMGate(Forwarder(os.environ["UPSTREAM_URL"]), callbacks=[Handler()], enforce_user_param=True)


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/health":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"ok": true}'})
    else:
        await gate(scope, receive, send)
