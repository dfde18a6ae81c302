"""A FastAPI app with a chat endpoint of its own, and the gate before it.

    uvicorn examples.fastapi_app:app
    curl http://127.0.0.1:8000/v1/chat/completions \
        --data '{"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "me"}'

Add `"stream": true` to see it streamed, say "Hello world" to be rejected, leave out the user to be refused.
"""

from typing import Annotated, Any

from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse

from asgi_llm_gate import LLMGate
from examples.handler import Handler
from examples.parrot import answer, events

app = FastAPI()
app.add_middleware(LLMGate, callbacks=[Handler()], enforce_user_param=True)


@app.post("/v1/chat/completions", response_model=None)
async def chat(data: Annotated[dict[str, Any], Body()]):
    if data.get("stream"):
        return StreamingResponse(events(data), media_type="text/event-stream")
    return answer(data)


@app.get("/health")
async def health():
    return {"ok": True}
