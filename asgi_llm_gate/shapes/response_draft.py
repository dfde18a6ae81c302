"""A response put together from the events of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import index_of
from asgi_llm_gate.shapes.response_items import (
    BY_NAME,
    ENDS,
    SNAPSHOTS,
    Kind,
    done_name,
    event_places,
    item_places,
    output_of,
    piece_name,
    response_items,
)

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json, TextName


class Draft:
    """What a stream's events have said so far.

    Attributes:
        response: The response as the last event that carried one had it, or None.
        finished: No event comes any more.
        items: The outputs, by index, as they were announced, or as they are where they are in `done`.
        done: The outputs that get no more pieces.
        ended: The texts and the parts that get no more pieces.
        ids: Where each id of an output stands; None where more than one have it.
    """

    def __init__(self) -> None:
        self.response: Json | None = None
        self.finished = False
        self.items: dict[int, Json] = {}
        self.done: set[int] = set()
        self.ended: set[TextName] = set()
        self.ids: dict[str, int | None] = {}
        self._texts: dict[TextName, list[str]] = {}
        self._parts: dict[tuple[int, str, int], Json] = {}

    def add(self, chunk: Json) -> None:
        """Take the next event."""
        name = piece_name(chunk)
        if name is None:
            self._add_whole(chunk)
            return
        pieces = self._texts.get(name)
        if pieces is None:
            self._announce(BY_NAME[name[-1]], chunk)
            pieces = self._texts[name] = []
        pieces.append(chunk["delta"])

    def _add_whole(self, chunk: Json) -> None:
        """Take an event that brings no piece."""
        step = chunk.get("type")
        if step == "response.output_item.done" and isinstance(chunk.get("item"), dict):
            self.done.add(output_of(chunk))
        if step in ENDS or step in SNAPSHOTS:
            self._snapshot(chunk)
        elif isinstance(chunk.get("item"), dict):
            self._item(output_of(chunk), chunk["item"])
        elif isinstance(chunk.get("part"), dict):
            self._part(chunk)
        elif step == "response.output_text.annotation.added":
            self._annotation(chunk)
        for place in event_places(chunk):
            self._texts[place.text] = [place.value]
        name = done_name(chunk)
        if name is not None:
            self._announce(BY_NAME[name[-1]], chunk)
            self.ended.add(name)

    def _snapshot(self, chunk: Json) -> None:
        self.finished = chunk["type"] in ENDS
        if isinstance(chunk.get("response"), dict):
            self.response = chunk["response"]
        for output, item in self.outputs(response_items(chunk)):
            self._item(output, item)
            for place in item_places(item, output):
                self._texts[place.text] = [place.value]

    def _item(self, output: int, item: Json) -> None:
        self.items[output] = item
        own: Any = item.get("id")
        if isinstance(own, str) and own:
            self.ids[own] = output if self.ids.get(own, output) == output else None

    def _part(self, chunk: Json) -> None:
        parts = "summary" if "summary_index" in chunk else "content"
        at = (output_of(chunk), parts, index_of(chunk, f"{parts}_index"))
        self._parts[at] = chunk["part"]
        if str(chunk.get("type")).endswith(".done"):
            self.ended.add(at)

    def _annotation(self, chunk: Json) -> None:
        at = (output_of(chunk), "content", index_of(chunk, "content_index"))
        part = self._parts.get(at, {})
        self._parts[at] = {**part, "annotations": [*(part.get("annotations") or []), chunk.get("annotation")]}

    def _announce(self, kind: Kind, chunk: Json) -> None:
        """Note what a piece belongs to, if nothing has announced that."""
        output = output_of(chunk)
        if output not in self.items:
            self._item(output, _new_item(kind, chunk.get("item_id")))
        if kind.parts:
            self._parts.setdefault((output, kind.parts, index_of(chunk, kind.index)), new_part(kind))

    def outputs(self, items: list[Json]) -> list[tuple[int, Json]]:
        """Return the items of a whole response, each with the index its events had.

        An id tells it; else its place among the outputs of its type that no id tells apart does. An output of which
        nothing was said gets an index that no other has.
        """
        found = [self._by_id(item) for item in items]
        left = [output for output in sorted(self.items) if output not in found]
        for position, item in enumerate(items):
            if found[position] is None:
                alike = [output for output in left if self.items[output].get("type") == item.get("type")]
                output = position if position in alike else next(iter(alike), None)
                if output is None:
                    output = position if position not in self.items else max(self.items) + 1 + position
                else:
                    left.remove(output)
                found[position] = output
        return [(output, item) for output, item in zip(found, items, strict=True) if output is not None]

    def _by_id(self, item: Json) -> int | None:
        own: Any = item.get("id")
        return self.ids.get(own) if isinstance(own, str) else None

    def said(self, name: TextName) -> str | None:
        """Return a text so far, or None if it has not begun."""
        pieces = self._texts.get(name)
        if pieces is None:
            return None
        pieces[:] = ["".join(pieces)]
        return pieces[0]

    def item(self, output: int) -> Json:
        """Return an output with what its pieces said put in."""
        item = self.items[output]
        if output in self.done:
            return item
        item = {**item, **{parts: self._listed(output, parts) for parts in ("content", "summary") if parts in item}}
        for name in self.names(output):
            kind = BY_NAME[name[-1]]
            if not kind.parts:
                item[kind.key] = self.said(name)
        return item

    def _listed(self, output: int, parts: str) -> list[Json]:
        return [self.part(*at) for at in sorted(at for at in self._parts if at[:2] == (output, parts))]

    def part(self, output: int, parts: str, index: int) -> Json:
        """Return a part of an output with what its pieces said put in."""
        part = dict(self._parts[output, parts, index])
        for name in self.names(output):
            kind = BY_NAME[name[-1]]
            if kind.parts == parts and name[1] == index and part.get("type", kind.part) == kind.part:
                part = {**new_part(kind), **part, kind.key: self.said(name)}
        return part

    def open(self) -> list[int]:
        """Return the indexes of the outputs that may go on."""
        return sorted(self.items.keys() - self.done)

    def parts(self, output: int) -> list[tuple[int, str, int]]:
        """Return which parts an output has so far."""
        return sorted(at for at in self._parts if at[0] == output)

    def names(self, output: int) -> list[TextName]:
        """Return the names of an output's texts, in the order they began."""
        return [name for name in self._texts if name[0] == output]

    def result(self) -> Json | None:
        """Return the response: the one the last event carried if it is the whole, else what there is of it."""
        if self.response is None and not self.items:
            return None
        if self.response is not None and self.finished:
            return self.response
        return {
            **(self.response or {"object": "response"}),
            "output": [self.item(output) for output in sorted(self.items)],
        }


def new_part(kind: Kind) -> Json:
    """Return a part of a kind that says nothing."""
    more: Json = {"annotations": [], "logprobs": []} if kind.part == "output_text" else {}
    return {"type": kind.part, kind.key: "", **more}


def _new_item(kind: Kind, id: Any) -> Json:
    item = {"id": id, "type": kind.item, "status": "in_progress"}
    if kind.item == "message":
        return {**item, "role": "assistant", "content": []}
    return {**item, "content": [], "summary": []} if kind.item == "reasoning" else {**item, kind.key: ""}
