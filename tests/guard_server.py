"""A server with OpenAI's API that guards ask: it says what a test has written for it, and notes what it was asked."""

from __future__ import annotations

import anyio
import httpx
import orjson


def completion(text):
    """What a guard model says, as a chat completion."""
    return orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


def results(*given):
    """The results of a moderation endpoint: for each piece, its flagged categories and their scores."""
    rows = [
        {
            "flagged": any(score >= 0.5 for score in scores.values()),
            "categories": {"hate": False, "illicit": None, **{name: score >= 0.5 for name, score in scores.items()}},
            "category_scores": {"hate": 0.01, "illicit": None, **scores},
        }
        for scores in given
    ]
    return orjson.dumps({"id": "modr-1", "model": "omni-moderation-latest", "results": rows})


async def sleeps(receive, body):
    """Say nothing, and hear nothing."""
    await anyio.sleep_forever()


class GuardServer:
    """An ASGI app of some answers, the last of which it repeats.

    An answer is a body, a status, or an async function that is given `receive` and the decoded body.
    """

    def __init__(self, *script):
        self.script = list(script)
        self.paths = []
        self.headers = []
        self.bodies = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise ValueError("only HTTP")
        self.paths.append(scope["path"])
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(orjson.loads(body))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(answer):
            answer = await answer(receive, self.bodies[-1])
        status, content = (answer, b"secret innards") if isinstance(answer, int) else (200, answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def client(self):
        """An HTTP client that reaches the server without a socket."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self))
