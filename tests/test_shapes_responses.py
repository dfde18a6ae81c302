"""The Responses API: what the model reads of a request, refusals, and streams in which every place of a text agrees."""

from __future__ import annotations

import copy
import itertools

import httpx2
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_llm_gate import CallHooks, LLMGate, get_formatted_prompt
from asgi_llm_gate.shapes import response_input, responses
from tests.harness import Request, Upstream
from tests.streams import chunks_of, client_of, helped_response, plain, streams

calm = settings(deadline=None)
anyio = pytest.mark.anyio

STREAMS = {name: chunks_of(body) for name, body in streams("responses").items()}
FULL, BARE, WHOLE = (STREAMS[f"responses_sse{name}"] for name in ("", "_bare", "_whole"))

NO = 'No \u2013 \u201cnie\u201d, 🦊\u2028\n"quoted"'

PLACES = [
    ("a string", lambda word: {"input": word}),
    ("a string among items", lambda word: {"input": [word]}),
    ("a message", lambda word: {"input": [{"role": "user", "content": word}]}),
    ("one message that is no list", lambda word: {"input": {"role": "user", "content": word}}),
    ("an input_text part", lambda word: {"input": [{"content": [{"type": "input_text", "text": word}]}]}),
    ("an output_text part", lambda word: {"input": [{"content": [{"type": "output_text", "text": word}]}]}),
    ("a refusal part", lambda word: {"input": [{"content": [{"type": "refusal", "refusal": word}]}]}),
    ("a part beside an image", lambda word: {"input": [{"content": [{"type": "input_image"}, {"text": word}]}]}),
    ("a function's output", lambda word: {"input": [{"type": "function_call_output", "output": word}]}),
    ("parts of a function's output", lambda word: {"input": [{"output": [{"type": "input_text", "text": word}]}]}),
    ("a custom tool's output", lambda word: {"input": [{"type": "custom_tool_call_output", "output": word}]}),
    ("a shell's output", lambda word: {"input": [{"type": "shell_call_output", "output": [{"stdout": word}]}]}),
    ("a shell's errors", lambda word: {"input": [{"type": "shell_call_output", "output": [{"stderr": word}]}]}),
    ("a function call", lambda word: {"input": [{"type": "function_call", "name": "f", "arguments": word}]}),
    ("a custom tool call", lambda word: {"input": [{"type": "custom_tool_call", "input": word}]}),
    ("a call of an MCP server", lambda word: {"input": [{"type": "mcp_call", "arguments": "{}", "output": word}]}),
    ("a reason", lambda word: {"input": [{"type": "mcp_approval_response", "approve": False, "reason": word}]}),
    ("code", lambda word: {"input": [{"type": "code_interpreter_call", "code": word}]}),
    ("what a search found", lambda word: {"input": [{"type": "file_search_call", "results": [{"text": word}]}]}),
    ("a summary of reasoning", lambda word: {"input": [{"type": "reasoning", "summary": [{"text": word}]}]}),
    ("reasoning", lambda word: {"input": [{"type": "reasoning", "summary": [], "content": [{"text": word}]}]}),
    ("instructions", lambda word: {"instructions": word}),
    ("a variable", lambda word: {"prompt": {"id": "pmpt_1", "variables": {"city": word}}}),
    ("a variable that is a part", lambda word: {"prompt": {"variables": {"c": {"type": "input_text", "text": word}}}}),
    ("a tool's description", lambda word: {"tools": [{"type": "function", "name": "f", "description": word}]}),
    ("an MCP server's description", lambda word: {"tools": [{"type": "mcp", "server_description": word}]}),
    ("another endpoint's field", lambda word: {"query": word}),
]


@pytest.mark.parametrize("place", [place for _, place in PLACES], ids=[name for name, _ in PLACES])
@pytest.mark.parametrize("call_type", ["responses", "aresponses", "responses_input_tokens", "responses_compact"])
def test_text_is_found_wherever_a_request_carries_it(call_type, place):
    data = place("Hello world")
    before = copy.deepcopy(data)
    assert "Hello world" in get_formatted_prompt(data, call_type).splitlines()
    assert data == before


def test_parts_of_one_message_run_on_and_items_do_not():
    parts = [{"type": "input_text", "text": "Hello "}, {"type": "input_text", "text": "world"}]
    data = {"instructions": "Hi", "input": [{"role": "user", "content": parts}, {"content": "hel"}, {"content": "lo"}]}
    assert responses.prompt_text(data) == "Hi\nHello world\nhel\nlo"


TEXTLESS: list = [None, 1, True, 1.5, [1, 2], [None], {}, [{}], [[]], [{"type": "input_image", "image_url": "u"}]]


@pytest.mark.parametrize("value", TEXTLESS, ids=repr)
def test_what_has_no_text_is_no_mistake(value):
    names = ("input", "instructions", "prompt", "tools")
    assert responses.prompt_text({}) == responses.prompt_text(dict.fromkeys(names, value)) == ""
    assert responses.prompt_text({"input": [{"content": value, "output": value, "arguments": value}]}) == ""


# Refusals


def strict(transport):
    http = httpx2.Client(transport=httpx2.MockTransport(transport))
    return openai.OpenAI(base_url="http://test", api_key="k", http_client=http, _strict_response_validation=True)


@pytest.mark.parametrize("message", [NO, "", "x" * 10_000], ids=["odd letters", "empty", "long"])
def test_a_refusal_is_a_response_that_the_client_accepts(message):
    body = responses.rejection({"model": "m"}, message, id="1", created=1)
    with strict(lambda request: httpx2.Response(200, json=body)) as client:
        answer = client.responses.create(model="m", input="Hi")
    assert (answer.output_text, answer.model, answer.status) == (message, "m", "completed")
    assert (answer.id, answer.output[0].id) == ("resp_1", "msg_1")


NINE = [
    *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
    *("output_text.done", "content_part.done", "output_item.done", "completed"),
]


@calm
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_refusal_is_a_stream_of_nine_events(message):
    chunks = [*responses.rejection_chunks({"model": "m"}, message, id="1", created=1)]
    assert [chunk["type"] for chunk in chunks] == [f"response.{step}" for step in NINE]
    assert [chunk["sequence_number"] for chunk in chunks] == list(range(9))
    assert chunks[4]["delta"] == message
    whole = responses.rejection({"model": "m"}, message, id="1", created=1)
    assert orjson.loads(orjson.dumps(chunks[-1]["response"])) == whole


def test_the_client_s_helper_reads_a_refusal():
    events, response = helped_response(responses.rejection_chunks({"model": "m"}, NO, id="1", created=1))
    assert [event["type"] for event in events] == [f"response.{step}" for step in NINE]
    assert response["output"][0]["content"][0]["text"] == NO


def test_an_empty_refusal_says_nothing():
    *_, last = responses.rejection_chunks({"model": "m"}, "", id="1", created=1)
    assert (last["type"], last["response"]["output"]) == ("response.completed", [])


class Refuses(CallHooks):
    async def async_pre_call_hook(self, data):
        return NO


class Masks(CallHooks):
    """Puts a bear for every fox, however the stream cuts it."""

    streaming_window = 12
    streaming_channels = ("text", "refusal", "tool_calls", "reasoning")

    async def async_post_call_streaming_hook(self, response):
        return bear(response)


def bear(text):
    return text.replace("fox", "bear").replace("Fox", "Bear").replace("Fuchs", "Bär")


def request(**fields):
    return Request(orjson.dumps({"model": "m", "input": "Hi", **fields}), "/v1/responses")


@anyio
async def test_the_gate_refuses_a_stream_in_named_events():
    response = await request(stream=True).to(LLMGate(Upstream(), callbacks=[Refuses()]))
    events = response.body.split(b"\n\n")
    assert [event.split(b"\n")[0].decode() for event in events] == [*(f"event: response.{step}" for step in NINE), ""]
    assert response.header("content-type") == "text/event-stream; charset=utf-8"


@anyio
async def test_the_gate_refuses_a_call_that_is_not_streamed_in_json():
    response = await request().to(LLMGate(Upstream(), callbacks=[Refuses()]))
    assert response.json()["output"][0]["content"][0]["text"] == NO


def answered(name, cut=1_000_000):
    body = streams("responses")[name]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
    pieces = [body[at : at + cut] for at in range(0, len(body), cut)]
    messages = [{"type": "http.response.body", "body": piece, "more_body": True} for piece in pieces]
    return Upstream([start, *messages, {"type": "http.response.body"}])


@anyio
@pytest.mark.parametrize("cut", [7, 1_000_000])
@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("responses_sse")])
async def test_a_masking_hook_changes_every_place_of_a_text(name, cut):
    """No fox is left in the stream, whose numbers stay without a gap and which the client's helper reads."""
    response = await request(stream=True).to(LLMGate(answered(name, cut), callbacks=[Masks()]))
    chunks = chunks_of(response.body)
    places = [text for chunk in chunks for text in text_places(chunk).values()]
    pieces = "".join(chunk["delta"] for chunk in chunks if isinstance(chunk.get("delta"), str))
    said = " ".join([pieces, *places]).lower()
    assert "fox" not in said
    assert "fuchs" not in said
    assert "bear" in said
    assert '"token":"Fuchs' not in response.body.decode()
    if "sequence_number" in chunks[0]:
        assert [chunk["sequence_number"] for chunk in chunks] == list(range(len(chunks)))
    assert response.body.count(b"event: ") == (0 if name == "responses_sse_bare" else len(chunks))
    assert response.body.endswith(b"[DONE]\n\n") is (name == "responses_sse_bare")
    assert_agreeing(chunks)
    if name != "responses_sse_whole":
        helped_response(chunks)


def text_places(chunk):
    """Where an event has texts whole, and what they are."""
    places = {}

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in {"text", "refusal", "arguments", "input", "code"} and isinstance(inner, str):
                    places[(*path, key)] = inner
                walk(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))

    walk(chunk, ())
    return {str(path): value for path, value in places.items()}


def assert_agreeing(chunks):
    """What the pieces say is what every later place says."""
    pieces: dict = {}
    for chunk in chunks:
        at = (chunk.get("output_index"), chunk.get("content_index", chunk.get("summary_index")))
        kind, _, step = chunk["type"].rpartition(".")
        if step == "delta":
            pieces[kind, at] = pieces.get((kind, at), "") + chunk["delta"]
        elif step == "done" and "delta" not in chunk and (kind, at) in pieces:
            assert pieces[kind, at] in text_places(chunk).values()
    last = set(text_places(chunks[-1]).values())
    assert set(pieces.values()) <= last | {""}


# Streams


def play(chunks, edit=lambda piece: piece, stream=None):
    """Send a stream's chunks, each piece edited."""
    stream = stream or responses.open_stream()
    sent, mended = copy.deepcopy(chunks), []
    for chunk in sent:
        for slot in list(stream.slots(chunk)):
            if edit(slot.piece) != slot.piece:
                slot.put(edit(slot.piece))
        mended.append(stream.seen(chunk))
    return sent, mended


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_an_untouched_stream_is_not_mended(chunks):
    sent, mended = play(chunks)
    assert not any(mended)
    assert sent == chunks


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_pieces_that_changed_change_the_whole(chunks):
    sent, _ = play(chunks, str.upper)
    assert [chunk["type"] for chunk in sent] == [chunk["type"] for chunk in chunks]
    assert_agreeing(sent)
    for chunk, before in zip(sent, chunks, strict=True):
        assert list(text_places(chunk).values()) == [text.upper() for text in text_places(before).values()]


@calm
@given(st.data(), st.sampled_from([FULL, BARE, WHOLE]))
def test_whatever_becomes_of_the_pieces_every_place_agrees(data, chunks):
    sent, _ = play(chunks, lambda piece: data.draw(st.sampled_from([piece, "", "fox", piece + piece])))
    assert_agreeing(sent)
    helped_response([*sent[:-1], {**sent[-1], "type": "response.completed"}])


def test_every_kind_of_text_is_found_in_its_channel():
    stream = responses.open_stream()
    found: dict = {}
    for chunk in FULL:
        for slot in stream.slots(chunk):
            assert slot.index == slot.text[0]
            found.setdefault((slot.text, slot.channel), []).append(slot.piece)
        stream.seen(chunk)
    assert {name: "".join(pieces) for name, pieces in found.items()} == {
        ((0, 0, "summary"), "reasoning"): "Think of a fox.",
        ((0, 0, "reasoning"), "reasoning"): "Foxes are red.",
        ((1, 0, "text"), "text"): "Ich heiße Fuchs 🦊",
        ((1, 1, "refusal"), "refusal"): "Mehr nicht.",
        ((1, 2, "text"), "text"): "Ende",
        ((2, "arguments"), "tool_calls"): '{"animal":"fox"}',
        ((3, "mcp"), "tool_calls"): '{"q":"fox"}',
        ((4, "input"), "tool_calls"): "a red fox",
        ((5, "code"), "tool_calls"): "print('fox')",
    }


def test_each_text_is_finished_by_its_end():
    stream = responses.open_stream()
    finished = {}
    for chunk in FULL:
        for name in stream.finishing(chunk):
            finished.setdefault(name, chunk["type"])
    assert finished == {
        (0, 0, "summary"): "response.reasoning_summary_text.done",
        (0, 0, "reasoning"): "response.reasoning_text.done",
        (1, 0, "text"): "response.output_text.done",
        (1, 1, "refusal"): "response.refusal.done",
        (1, 2, "text"): "response.output_text.done",
        (2, "arguments"): "response.function_call_arguments.done",
        (3, "mcp"): "response.mcp_call_arguments.done",
        (4, "input"): "response.custom_tool_call_input.done",
        (5, "code"): "response.code_interpreter_call_code.done",
        **{(output,): "response.output_item.done" for output in range(7)},
        (): "response.completed",
    }
    assert list(stream.finishing({"type": "error", "message": "m"})) == [()]
    part = {"type": "response.content_part.done", "part": {"type": "output_text", "text": "a"}}
    assert list(stream.finishing(part)) == [(0, 0, "text")]


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_what_only_announces_is_preamble(chunks):
    stream = responses.open_stream()
    opening = list(itertools.takewhile(stream.is_preamble, chunks))
    assert opening[0]["type"] == "response.created"
    assert {chunk["type"].rpartition(".")[2] for chunk in chunks[len(opening) :][:1]} <= {"delta", "done"}
    assert not stream.is_preamble({"error": {"message": "m"}})
    text = {"type": "output_text", "text": "a"}
    assert not stream.is_preamble({"type": "response.content_part.added", "part": text})


def test_log_probabilities_go_where_a_text_changed_and_stay_elsewhere():
    """They spell the old text out, in every place that has it."""
    sent, _ = play(FULL, bear)
    with_them = [chunk for chunk in sent if '"logprob"' in orjson.dumps(chunk).decode()]
    assert [chunk.get("delta") for chunk in with_them] == ["Ich ", "hei", "ße "]
    sent, _ = play(FULL, lambda piece: piece.replace("Ende", "End"))
    assert sent[-1]["response"]["output"][1]["content"][0]["logprobs"]


@pytest.mark.parametrize("chunks", [FULL, BARE], ids=["with ids", "without ids"])
@pytest.mark.parametrize("text", ["", " more"])
def test_text_may_be_added_to_any_piece(chunks, text):
    """Behind every piece the stream takes another event, and the client's helper reads all."""
    stream = responses.open_stream()
    sent = []
    for chunk in copy.deepcopy(chunks):
        slots = list(stream.slots(chunk))
        stream.seen(chunk)
        sent.append(chunk)
        for slot in slots:
            more = stream.more(slot, text)
            stream.seen(more)
            sent.append(more)
    if "sequence_number" in sent[0]:
        assert [chunk["sequence_number"] for chunk in sent] == list(range(len(sent)))
    else:
        assert not any("sequence_number" in chunk for chunk in sent)
    assert_agreeing(sent)
    _, response = helped_response(sent)
    assert any(value.endswith(text) for value in text_places(response).values())


def ids_and_indexes(chunk):
    return {name: chunk.get(name) for name in ("item_id", "output_index", "content_index", "summary_index", "type")}


def test_an_added_event_is_like_the_pieces_before_it():
    stream = responses.open_stream()
    for chunk in FULL:
        stream.seen(chunk)
        for slot in list(stream.slots(chunk)) if "delta" in chunk else ():
            assert ids_and_indexes(stream.more(slot, "a")) == ids_and_indexes(chunk)


def test_events_left_out_leave_no_gap_and_no_text():
    """What a hook kept from the client piece by piece does not come whole at the end."""
    kept = [chunk for chunk in FULL if "reasoning" not in chunk["type"]]
    sent, _ = play(kept)
    assert [chunk["sequence_number"] for chunk in sent] == list(range(len(sent)))
    reasoning = sent[-1]["response"]["output"][0]
    assert [part["text"] for part in reasoning["summary"] + reasoning["content"]] == ["", ""]
    assert sent[-1]["response"]["output"][1:] == FULL[-1]["response"]["output"][1:]


@pytest.mark.parametrize("output", range(6))
def test_an_output_left_out_altogether_has_no_text(output):
    sent, _ = play([chunk for chunk in FULL if chunk.get("output_index") != output])
    whole = sent[-1]["response"]["output"]
    assert set(text_places(whole[output]).values()) == {""}
    del whole[output]
    assert whole == [item for at, item in enumerate(FULL[-1]["response"]["output"]) if at != output]


def test_an_output_that_comes_without_pieces_stays_when_another_was_left_out():
    item = {"id": "fc", "type": "function_call", "arguments": "{}", "name": "f", "call_id": "c"}
    first, last = FULL[0], FULL[-1]
    chunks = [
        first,
        {"type": "response.output_item.added", "output_index": 7, "item": item, "sequence_number": 9},
        {"type": "response.output_item.done", "output_index": 7, "item": item, "sequence_number": 10},
        {**last, "response": {**last["response"], "output": [item]}, "sequence_number": 11},
    ]
    sent, _ = play(chunks)
    assert [chunk["sequence_number"] for chunk in sent] == [0, 1, 2, 3]
    assert sent[-1]["response"]["output"] == [item]


def test_numbers_that_do_not_count_are_left_alone():
    """Some servers number every event alike, or none, or start late."""
    for numbers in (itertools.repeat(-1), itertools.repeat(0), itertools.count(40), itertools.repeat(None)):
        chunks = [{**chunk, "sequence_number": number} for chunk, number in zip(BARE, numbers, strict=False)]
        assert not any(play(chunks)[1])


def test_an_event_of_a_hook_s_own_is_numbered():
    first, last = FULL[0], FULL[-1]
    sent, _ = play([first, {"type": "response.in_progress"}, {"type": "mine"}, {**last, "sequence_number": 1}])
    assert [chunk.get("sequence_number") for chunk in sent] == [0, 1, None, 2]


def test_numbers_that_go_back_are_mended_once_events_were_added():
    first, last = FULL[0], FULL[-1]
    sent, _ = play(
        [first, {"type": "response.in_progress"}, {"type": "response.queued"}, {**last, "sequence_number": 0}]
    )
    assert [chunk["sequence_number"] for chunk in sent] == [0, 1, 2, 3]


def test_outputs_are_told_apart_by_their_ids_then_by_their_place():
    """The indexes of a stream's events need not be the places in the response."""

    def stream(*ids):
        chunks = [{"type": "response.created", "response": {"id": "r", "output": []}}]
        items = []
        for output, (own, word) in zip((0, 2), ids, strict=True):
            item = {"type": "message", "content": [{"type": "output_text", "text": word}]} | (
                {"id": own} if own else {}
            )
            added = {"type": "response.output_item.added", "output_index": output, "item": {**item, "content": []}}
            delta = {"type": "response.output_text.delta", "output_index": output, "content_index": 0, "delta": word}
            chunks += [added, delta]
            items.append(item)
        return items, chunks

    for ids, order in [((("a", "one"), ("b", "two")), 1), ((("a", "one"), ("b", "two")), -1)]:
        items, chunks = stream(*ids)
        chunks.append({"type": "response.completed", "response": {"id": "r", "output": items[::order]}})
        sent, _ = play(chunks, str.upper)
        said = [item["content"][0]["text"] for item in sent[-1]["response"]["output"]]
        assert said == ["ONE", "TWO"][::order]
    for ids in [((None, "one"), (None, "two")), (("x", "one"), ("x", "two")), ((1, "one"), ("", "two"))]:
        items, chunks = stream(*ids)
        chunks.append({"type": "response.completed", "response": {"id": "r", "output": items}})
        sent, _ = play(chunks, str.upper)
        assert [item["content"][0]["text"] for item in sent[-1]["response"]["output"]] == ["ONE", "TWO"]


def test_a_text_beside_the_outputs_agrees_with_them():
    last = {**BARE[-1], "response": {**BARE[-1]["response"], "output_text": "One fox, two foxes."}}
    sent, mended = play([*BARE[:-1], last], bear)
    assert (sent[-1]["response"]["output_text"], mended[-1]) == ("One bear, two beares.", True)
    sent, mended = play([*BARE[:-1], last])
    assert not any(mended)


# Ends


def cut(chunks, at, end):
    """The stream up to some event, and then its end."""
    stream = responses.open_stream()
    sent, _ = play(chunks[:at], stream=stream)
    for chunk in end(stream):
        stream.seen(chunk)
        sent.append(chunk)
    return sent


CUTS = [pytest.param(chunks, at, id=f"{name}-{at}") for name, chunks in STREAMS.items() for at in range(len(chunks))]


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_a_stream_may_end_anywhere_with_a_message(chunks, at):
    """The client's helper reads it to the end, and the last text says it."""
    sent = cut(chunks, at, lambda stream: stream.message_end(NO, "stop"))
    events, response = helped_response(sent)
    assert events[-1]["type"] == "response.completed"
    texts = [part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"][-1:]]
    assert texts[-1].endswith(NO)
    assert [item["status"] for item in response["output"] if item["type"] == "message"][-1] == "completed"
    if "sequence_number" in sent[0]:
        assert [chunk["sequence_number"] for chunk in sent] == list(range(len(sent)))
    assert_agreeing(sent)
    assert "in_progress" not in [item.get("status") for item in response["output"]]


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_a_stream_may_be_cut_anywhere(chunks, at):
    """An incomplete response tells why; the client reads its events, for its helper wants complete ones."""
    sent = cut(chunks, at, lambda stream: stream.message_end(NO, "content_filter"))
    with client_of(sent) as client, client.responses.create(model="m", input="Hi", stream=True) as stream:
        *_, last = [plain(event) for event in stream]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert NO in str(list(text_places(last).values())[-1]) or NO in "".join(text_places(last).values())
    opened = {chunk["output_index"] for chunk in sent if chunk["type"] == "response.output_item.added"}
    ended = {chunk["output_index"] for chunk in sent if chunk["type"] == "response.output_item.done"}
    assert opened == ended


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_a_stream_may_stop_anywhere_without_a_word(chunks, at):
    sent = cut(chunks, at, lambda stream: stream.message_end("", "stop"))
    _, response = helped_response(sent)
    assert {text for text in text_places(response).values() if text} <= {
        text for chunk in sent[:-1] for text in text_places(chunk).values()
    }


@pytest.mark.parametrize(("chunks", "at"), CUTS)
def test_a_stream_may_fail_anywhere(chunks, at):
    error = {"message": "Broken", "type": "server_error", "param": None, "code": "hook_failed"}
    sent = cut(chunks, at, lambda stream: stream.error_end(error))
    with client_of(sent) as client, client.responses.create(model="m", input="Hi", stream=True) as stream:
        *_, last = [plain(event) for event in stream]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "hook_failed", "message": "Broken"}
    assert "in_progress" not in [item.get("status") for item in last["response"]["output"]]


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_after_its_end_a_stream_ends_no_more(chunks):
    assert cut(chunks, len(chunks), lambda stream: stream.message_end(NO, "stop")) == chunks
    assert cut(chunks, len(chunks), lambda stream: stream.error_end({"message": "m"})) == chunks


def test_an_error_without_a_code_has_one():
    *_, last = cut(FULL, 3, lambda stream: stream.error_end({"message": "m"}))
    assert last["response"]["error"] == {"code": "server_error", "message": "m"}


def test_parts_of_another_kind_are_left_as_they_are():
    part = {"type": "output_audio", "transcript": "a"}
    added = {"type": "response.content_part.added", "output_index": 0, "content_index": 0, "part": part}
    item = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}}
    sent = cut([FULL[0], item, added], 3, lambda stream: stream.message_end(NO, "stop"))
    audio, text = sent[-1]["response"]["output"][0]["content"]
    assert (audio, text["text"]) == (part, NO)


ODD = [
    {},
    {"type": 1},
    {"type": "response.completed"},
    {"type": "response.completed", "response": {"output": None}},
    {"type": "response.completed", "response": {"output": [None, {"id": 1}, {"type": "message", "content": [1]}]}},
    {"type": "response.created", "response": {"output": [{"type": "function_call", "arguments": "a"}]}},
    {"type": "response.output_text.delta", "delta": None},
    {"type": "response.refusal.delta", "delta": ""},
    {"type": "response.output_text.delta", "delta": "a", "output_index": "0", "content_index": None},
    {"type": "response.function_call_arguments.delta", "delta": "a"},
    {"type": "response.output_text.done", "text": None},
    {"type": "response.output_item.done", "item": None},
    {"type": "response.output_item.done", "item": {"content": None}},
    {"type": "response.content_part.done", "part": {"type": "refusal"}},
    {
        "type": "response.reasoning_summary_part.added",
        "summary_index": 1,
        "part": {"type": "summary_text", "text": "a"},
    },
    {"type": "response.output_text.annotation.added", "annotation": {}},
    {"type": "response.reasoning_text.delta", "delta": "a", "output_index": 3},
]


@calm
@given(st.lists(st.sampled_from(ODD), max_size=6), st.booleans(), st.sampled_from(["", "m"]))
def test_odd_events_are_no_mistake(chunks, numbered, message):
    stream = responses.open_stream()
    for number, chunk in enumerate(copy.deepcopy(chunks)):
        if numbered:
            chunk["sequence_number"] = number * number
        play([chunk], stream=stream)
        list(stream.finishing(chunk))
        stream.is_preamble(chunk)
        assert stream.event_name(chunk) in {chunk.get("type"), None}
    for chunk in stream.message_end(message, "stop"):
        stream.seen(chunk)


def test_the_other_endpoints_have_no_words():
    assert response_input.rejection({}, NO, id="1", created=1) is None
    assert response_input.open_stream() is None
    assert not responses.open_stream().ends_with_done
