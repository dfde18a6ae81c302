"""A Litestar app with a chat endpoint of its own, and the gate before it.

    granian --interface asgi examples.litestar_app:app
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

from litestar import Litestar, Request, get, post
from litestar.response import Response, Stream

from asgi_llm_gate import LLMGate
from examples.handler import Handler
from examples.parrot import answer, events


@post("/v1/chat/completions", status_code=200)
async def chat(request: Request) -> Response:
    data = await request.json()
    if data.get("stream"):
        return Stream(events(data), media_type="text/event-stream")
    return Response(answer(data))


@get("/health")
async def health() -> dict[str, bool]:
    return {"ok": True}


app = LLMGate(Litestar([chat, health]), callbacks=[Handler()], enforce_user_param=True)
