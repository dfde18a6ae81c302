"""The demo: the echo model in OpenAI's shapes, the handler before it, and every curl that is printed."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import zlib

import anthropic
import anyio
import httpx
import openai
import orjson
import pytest

from asgi_llm_gate.demo.echo import EchoModel
from asgi_llm_gate.demo.trials import TRIALS
from tests.commandline import command, serving
from tests.harness import CHAT, Request
from tests.servers import serve
from tests.services import require

HELLO = [{"role": "user", "content": "hello wide world"}]


@pytest.fixture(scope="module")
def client():
    """The official client, strict about every field, before a served echo model."""
    with (
        serve(EchoModel(pause=0)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0, _strict_response_validation=True) as client,
    ):
        yield client


@pytest.fixture
def loose_client(client):
    """The official client as it is by default: a strict one refuses OpenAI's own text chunks and base64."""
    with openai.OpenAI(base_url=client.base_url, api_key="sk", max_retries=0) as loose:
        yield loose


def test_chat_completions_repeat_the_last_message(client):
    """Every choice says what the last message said, and usage counts its words."""
    messages = [{"role": "system", "content": "be brief"}, *HELLO]
    answer = client.chat.completions.create(model="any", messages=messages, n=2)
    assert [(c.index, c.message.content, c.finish_reason) for c in answer.choices] == [
        (0, "hello wide world", "stop"),
        (1, "hello wide world", "stop"),
    ]
    assert answer.model == "any"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 6, 11)


def test_content_in_parts_is_heard(client):
    """The text parts of a message are what is repeated."""
    parts = [{"type": "text", "text": "a cat"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = client.chat.completions.create(model="any", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "a cat"


@pytest.mark.parametrize("usage", [False, True])
def test_chat_streams_a_token_a_chunk(client, usage):
    """Each choice has its role, a chunk for each token and its finish; usage comes last and only if asked for."""
    chunks = list(
        client.chat.completions.create(
            model="any", messages=HELLO, n=2, stream=True, stream_options={"include_usage": usage}
        )
    )
    if usage:
        assert chunks.pop().usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in chunks)
    assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert [choice.delta.role for choice in mine] == ["assistant", None, None, None, None]
        assert [choice.delta.content for choice in mine] == ["", "hello", " wide", " world", None]
        assert [choice.finish_reason for choice in mine] == [None] * 4 + ["stop"]


def test_the_client_helper_puts_a_stream_together(client):
    """The official client's stream helper reads the whole text."""
    with client.chat.completions.stream(model="any", messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == "hello wide world"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("one two", ["one two"] * 2),
        (["one", "two two"], ["one", "one", "two two", "two two"]),
        ([1, 2], ["1 2"] * 2),
        ([[1], [2, 3]], ["1", "1", "2 3", "2 3"]),
    ],
)
def test_text_completions_repeat_each_prompt(client, loose_client, prompt, said):
    """Every prompt has `n` choices, whole and streamed."""
    answer = client.completions.create(model="any", prompt=prompt, n=2)
    assert [choice.text for choice in answer.choices] == said
    texts, reasons = [""] * len(said), {}
    options = {"include_usage": True}
    *chunks, last = loose_client.completions.create(
        model="any", prompt=prompt, n=2, stream=True, stream_options=options
    )
    for chunk in chunks:
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
    assert texts == said
    assert reasons == dict.fromkeys(range(len(said)), "stop")
    assert last.usage == answer.usage


def test_a_text_stream_without_usage_has_none(loose_client):
    """No chunk of a text completion's stream speaks of usage unless it was asked for."""
    chunks = list(loose_client.completions.create(model="any", prompt="a b", stream=True))
    assert ["usage" in chunk.model_fields_set for chunk in chunks] == [False] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hello wide world", "hello wide world"),
        ([{"role": "user", "content": "be brief"}, *HELLO], "hello wide world"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "a cat"}]}], "a cat"),
    ],
)
def test_responses_repeat_the_last_item(client, given, said):
    """A response has one message with what the input said last, and its usage."""
    answer = client.responses.create(model="any", input=given)
    assert (answer.output_text, answer.status, answer.model) == (said, "completed", "any")
    assert answer.usage.output_tokens == len(said.split())
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_a_response_streams_a_token_a_piece(client):
    """The events are named and numbered, the pieces make up the text, and the last one has the whole response."""
    events = list(client.responses.create(model="any", input="hello wide world", stream=True))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == [
        "hello",
        " wide",
        " world",
    ]
    assert [event.sequence_number for event in events] == list(range(11))
    assert events[0].type == "response.created"
    last = events[-1].response
    assert (events[-1].type, last.output_text, last.usage.output_tokens) == (
        "response.completed",
        "hello wide world",
        3,
    )
    with client.responses.stream(model="any", input="a b") as stream:
        assert stream.get_final_response().output_text == "a b"


def test_messages_repeat_the_last_message(client):
    """Whole and as a stream, as Anthropic's official client reads them."""
    asked = {"model": "any", "max_tokens": 9, "system": "be brief", "messages": HELLO}
    url = str(client.base_url).removesuffix("/v1/")
    with anthropic.Anthropic(base_url=url, api_key="sk", max_retries=0) as anthropics:
        answer = anthropics.messages.create(**asked)
        assert (answer.content[0].text, answer.stop_reason) == ("hello wide world", "end_turn")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
        with anthropics.messages.stream(**asked) as stream:
            assert list(stream.text_stream) == ["hello", " wide", " world"]
            assert stream.get_final_message().usage.output_tokens == 3


def test_embeddings_are_the_same_in_both_encodings(client, loose_client):
    """Equal texts have equal vectors of length 1, others have others; base64 holds the same numbers."""
    texts = ["a", "b", "a"]
    plain = client.embeddings.create(model="any", input=texts, encoding_format="float", dimensions=5)
    vectors = [item.embedding for item in plain.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(number**2 for number in vectors[0]) == pytest.approx(1)
    coded = client.embeddings.with_raw_response.create(model="any", input=texts, encoding_format="base64", dimensions=5)
    items = coded.http_response.json()["data"]
    decoded = [struct.unpack("<5f", base64.b64decode(item["embedding"])) for item in items]
    assert decoded == [pytest.approx(vector) for vector in vectors]
    answer = loose_client.embeddings.create(model="any", input="a")  # which asks for base64, and decodes it
    assert (len(answer.data[0].embedding), answer.usage.total_tokens) == (8, 1)


def test_moderations_flag_what_is_named(client):
    """A text that names a category is flagged for it; there is a result for each text."""
    answer = client.moderations.create(input=["much Violence", "peace"])
    assert [result.flagged for result in answer.results] == [True, False]
    assert answer.results[0].categories.violence
    assert not answer.results[0].categories.hate
    parts = [{"type": "text", "text": "hate"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    (result,) = client.moderations.create(model="any", input=parts).results
    assert result.categories.hate


def test_images_are_images(client):
    """Each image is a PNG of one colour, as a data URL or as base64."""
    answer = client.images.generate(model="any", prompt="a cat", n=2)
    assert len(answer.data) == 2
    url = answer.data[0].url.removeprefix("data:image/png;base64,")
    coded = client.images.generate(model="any", prompt="a cat", response_format="b64_json").data[0].b64_json
    assert url == coded
    png = base64.b64decode(coded)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    (length,) = struct.unpack(">I", png[33:37])
    pixels = zlib.decompress(png[41 : 41 + length])
    assert (width, height, len(pixels)) == (64, 64, 64 * (1 + 3 * 64))


def test_models_are_listed(client):
    """There is one model to be listed, though any name is served."""
    assert [model.id for model in client.models.list()] == ["echo"]


BAD = [
    ("POST", "/v1/chat/completions", {"messages": HELLO}, 400, "model"),
    ("POST", "/v1/chat/completions", {"model": "m"}, 400, "messages"),
    ("POST", "/v1/chat/completions", {"model": "m", "messages": []}, 400, "messages"),
    ("POST", "/v1/chat/completions", {"model": "m", "messages": ["hello"]}, 400, "messages"),
    ("POST", "/v1/chat/completions", {"model": "m", "messages": HELLO, "n": 0}, 400, "n"),
    ("POST", "/v1/chat/completions", {"model": "m", "messages": HELLO, "n": True}, 400, "n"),
    ("POST", "/v1/chat/completions", {"messages": HELLO, "stream": True}, 400, "model"),
    ("POST", "/v1/completions", {"model": "m"}, 400, "prompt"),
    ("POST", "/v1/completions", {"model": "m", "prompt": []}, 400, "prompt"),
    ("POST", "/v1/completions", {"model": "m", "prompt": [True], "stream": True}, 400, "prompt"),
    ("POST", "/v1/embeddings", {"model": "m", "input": ["a", []]}, 400, "input"),
    ("POST", "/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
    ("POST", "/v1/embeddings", {"model": "m", "input": "a", "dimensions": 10**6}, 400, "dimensions"),
    ("POST", "/v1/moderations", {}, 400, "input"),
    ("POST", "/v1/images/generations", {"prompt": ""}, 400, "prompt"),
    ("POST", "/v1/images/generations", {"prompt": "a", "n": 11}, 400, "n"),
    ("POST", "/v1/messages", {"model": "m"}, 400, "messages"),
    ("POST", "/v1/messages", {"messages": HELLO, "stream": True}, 400, "model"),
    ("POST", "/v1/responses", {"model": "m"}, 400, "input"),
    ("POST", "/v1/responses", {"model": "m", "input": ["a"]}, 400, "input"),
    ("POST", "/v1/responses", {"input": "a", "stream": True}, 400, "model"),
    ("POST", "/v1/chat/completions", [1], 400, None),
    ("POST", "/v1/audio/speech", {}, 404, None),
    ("GET", "/v1/chat/completions", None, 405, None),
    ("POST", "/v1/models", {}, 405, None),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "param"), BAD)
def test_what_cannot_be_answered_is_refused_in_the_envelope(client, method, path, body, status, param):
    """A wrong field is named, an unknown path or a wrong method is told by its status."""
    url = str(client.base_url).removesuffix("/v1/")
    response = httpx.request(method, f"{url}{path}", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.anyio
async def test_a_stream_is_sent_a_token_at_a_time():
    """Each event is a message of its own."""
    body = orjson.dumps({"model": "m", "messages": HELLO, "stream": True})
    request = Request(body)
    await request.to(EchoModel(pause=0))
    bodies = [message["body"] for message in request.sent[1:]]
    assert all(re.fullmatch(rb"data: [^\n]+\n\n", event) for event in bodies[:-1])
    assert bodies[-2:] == [b"data: [DONE]\n\n", b""]


@pytest.mark.anyio
async def test_a_stream_stops_when_the_client_goes_away():
    """What nobody reads is not made."""
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 1000}], "stream": True})
    request = Request(body)
    started = anyio.Event()

    async def send(message):
        request.sent.append(message)
        started.set()

    async with anyio.create_task_group() as group:
        group.start_soon(EchoModel(pause=0.001), request.scope, request.receive, send)
        await started.wait()
        request.gone.set()
    assert request.sent[0]["status"] == 200
    assert len(request.sent) < 1000


@pytest.mark.anyio
async def test_a_client_that_goes_away_before_its_body_is_whole_gets_nothing():
    """A request that breaks off is not answered."""
    request = Request(path=CHAT, messages=[{"type": "http.request", "body": b"{", "more_body": True}])
    request.gone.set()
    await EchoModel()(request.scope, request.receive, request.send)
    assert request.sent == []


@pytest.mark.anyio
async def test_only_http_is_served():
    """Other scopes are refused as ASGI has it, by an exception."""
    request = Request()
    with pytest.raises(RuntimeError, match="websocket"):
        await EchoModel()({**request.scope, "type": "websocket"}, request.receive, request.send)


SHOWN = [
    (200, '"model":"my-new-model"', "good morning good sir"),
    (200, '"delta":{"content":" morning"}', "data: [DONE]"),
    (200, '"content":"This is an invalid response"', '"finish_reason":"stop"'),
    (200, '"delta":{"content":"This is an invalid response"}', "data: [DONE]"),
    (400, '"message":"This is an invalid response"', '"content_policy_violation"'),
    (400, '"message":"Violated content safety policy"', '"invalid_request_error"'),
    (400, '"param":"user"', '"missing_required_parameter"'),
    (400, '"code":"invalid_json"', "trailing comma"),
]


def test_every_printed_curl_shows_what_it_says():
    """The demo starts with nothing to configure, and each command it prints has the result it announces."""
    require("curl")
    with serving(command("demo", "--port", "0")) as server:
        commands = re.findall(r"^ +(curl .*)$", "".join(server.lines), re.MULTILINE)
        assert len(commands) == len(SHOWN) == len(TRIALS)
        for line, (status, *shown) in zip(commands, SHOWN, strict=True):
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60)
            head, _, body = done.stdout.partition("\n\n")
            assert head.startswith(f"HTTP/1.1 {status} "), line
            assert [part for part in shown if part not in body] == [], body
    assert server.status == 0
    assert server.errors == ""
