"""Calls that every version of the official client can make; run as a program it prints what came of them as JSON."""

from __future__ import annotations

import json
import sys

import openai


def chat(client, prompt):
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return [answer.choices[0].message.content, answer.choices[0].finish_reason]


def chat_stream(client, prompt):
    messages = [{"role": "user", "content": prompt}]
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="m", messages=messages, stream=True, stream_options=options))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return [
        "".join(choice.delta.content or "" for choice in choices),
        [choice.finish_reason for choice in choices if choice.finish_reason],
        chunks[-1].usage is not None,
    ]


def chat_helper(client, prompt):
    helper = getattr(client.chat.completions, "stream", None) or client.beta.chat.completions.stream
    with helper(model="m", messages=[{"role": "user", "content": prompt}]) as stream:
        return stream.get_final_completion().choices[0].message.content


def text(client, prompt):
    return client.completions.create(model="m", prompt=prompt).choices[0].text


def text_stream(client, prompt):
    chunks = client.completions.create(model="m", prompt=prompt, stream=True)
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)


def responses(client, prompt):
    return client.responses.create(model="m", input=prompt).output_text


def responses_stream(client, prompt):
    events = list(client.responses.create(model="m", input=prompt, stream=True))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return [deltas, events[-1].type, events[-1].response.output_text]


def embeddings(client, prompt):
    return len(client.embeddings.create(model="m", input=prompt).data)


def moderations(client, prompt):
    return client.moderations.create(input=prompt).results[0].flagged


CALLS = (
    *(chat, chat_stream, chat_helper, text, text_stream),
    *(responses, responses_stream, embeddings, moderations),
)


def outcome(call, client, prompt):
    """What a call returns, or the error that it raises."""
    try:
        return call(client, prompt)
    except openai.APIStatusError as exc:
        return [type(exc).__name__, exc.status_code, exc.body["message"], exc.code]
    except openai.APIError as exc:
        return [type(exc).__name__, exc.message, exc.code]


def outcomes(url, prompts):
    with openai.OpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=20) as client:
        return {call.__name__: [outcome(call, client, prompt) for prompt in prompts] for call in CALLS}


if __name__ == "__main__":  # pragma: no branch
    sys.stdout.write(json.dumps([openai.__version__, outcomes(sys.argv[1], sys.argv[2:])]))
