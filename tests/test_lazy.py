"""Attributes that are made when someone first asks for them."""

from __future__ import annotations

from asgi_llm_gate.lazy import lazy


class Thing:
    """Counts how often its attribute is made."""

    made = 0

    @lazy
    def part(self) -> list[int]:
        """What it is for."""
        self.made += 1
        return [self.made]


def test_is_made_once_for_each_object() -> None:
    one, other = Thing(), Thing()
    assert one.made == 0
    assert one.part is one.part
    assert one.part is not other.part
    assert (one.made, other.made) == (1, 1)


def test_can_be_set_before_it_is_made() -> None:
    thing = Thing()
    thing.part = [7]
    assert thing.part == [7]
    assert thing.made == 0


def test_of_the_class_it_is_what_documents_it() -> None:
    assert Thing.part.__doc__ == "What it is for."
