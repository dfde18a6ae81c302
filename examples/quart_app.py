"""A Quart app with a chat endpoint of its own, and the gate before it.

    hypercorn examples.quart_app:app
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

from quart import Quart, Response, request

from asgi_llm_gate import LLMGate
from examples.handler import Handler
from examples.parrot import answer, events

app = Quart(__name__)
app.asgi_app = LLMGate(app.asgi_app, callbacks=[Handler()], enforce_user_param=True)  # type: ignore[assignment, method-assign]


@app.post("/v1/chat/completions")
async def chat():
    data = await request.get_json()
    if data.get("stream"):
        response = Response(events(data), content_type="text/event-stream")
        response.timeout = None  # Quart ends a response after a minute
        return response
    return answer(data)


@app.get("/health")
async def health():
    return {"ok": True}
