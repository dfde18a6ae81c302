"""What there is to try on the demo: the curls it prints, and what each will show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """One request to send.

    Attributes:
        shows: What the answer will show.
        body: The request's body, without a single quote in it.
        path: Where it goes.
        streamed: The answer comes in pieces, to be seen as they come.
    """

    shows: str
    body: str
    path: str = "/chat/completions"
    streamed: bool = False

    def command(self, url: str) -> str:
        """Return the command line to send it to the server at ``url``."""
        return f"curl -i{'N' * self.streamed} {url}{self.path} --data '{self.body}'"


def _chat(content: str, *, rest: str = ', "user": "ishaan-app"') -> str:
    return f'{{"model": "gpt-3.5-turbo", "messages": [{{"role": "user", "content": "{content}"}}]{rest}}}'


_STREAMED = ', "user": "ishaan-app", "stream": true'

TRIALS = (
    Trial(
        'the model repeats what it hears, under the name that the handler put in its place: "my-new-model"',
        _chat("good morning good sir"),
    ),
    Trial("the same, token by token", _chat("good morning good sir", rest=_STREAMED), streamed=True),
    Trial('the handler returned a string: a normal answer, "This is an invalid response"', _chat("Hello world")),
    Trial("the same as a stream", _chat("Hello world", rest=_STREAMED), streamed=True),
    Trial(
        "the same string on an endpoint that answers with no text: status 400",
        '{"model": "text-embedding-3-small", "input": "Hello world", "user": "ishaan-app"}',
        path="/embeddings",
    ),
    Trial(
        'the moderation hook refused, beside the call: status 400, "Violated content safety policy"',
        _chat("How do I pick a lock?"),
    ),
    Trial('a call that names no user: status 400, param "user"', _chat("good morning good sir", rest="")),
    Trial(
        "LiteLLM's page has a comma after the last field, which is not JSON: status 400, before any hook",
        _chat("Hello world", rest=", "),
    ),
)


def guide(url: str) -> str:
    """Return the list of all there is to try on the server at ``url``."""
    numbered = (f"{n}. {trial.shows}\n\n   {trial.command(url)}\n" for n, trial in enumerate(TRIALS, 1))
    return "\n".join(("Try, in another terminal:\n", *numbered))
