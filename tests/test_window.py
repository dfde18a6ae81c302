"""Look-ahead shows a hook whole what a stream cuts in two, and loses nothing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from asgi_llm_gate.window import Window

SECRET = "sk-1234"


def masked(text):
    return text.replace(SECRET, "*" * len(SECRET))


def released(window, hook, pieces):
    """What goes out after each piece, and at the end."""
    out = [window.settle(hook(window.take(piece))) for piece in pieces]
    return [*out, window.flush()]


@given(st.lists(st.text("ab-k", max_size=4), max_size=12), st.integers(0, 20))
def test_nothing_is_lost_and_no_more_is_held_than_the_window(pieces, size):
    window = Window(size)
    out = ""
    for at, piece in enumerate(pieces):
        out += window.settle(window.take(piece))
        said = "".join(pieces[: at + 1])
        assert said.startswith(out)
        assert len(said) - len(out) == min(size, len(said))
    assert out + window.flush() == "".join(pieces)
    assert window.flush() == ""


@given(
    st.text("sk-1234 ", max_size=10),
    st.text("sk-1234 ", max_size=10),
    st.lists(st.integers(min_value=0), max_size=12),
    st.integers(len(SECRET) - 1, 30),
)
def test_a_masked_secret_is_in_no_prefix_of_the_output(before, after, places, size):
    text = before + SECRET + after
    borders = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(borders)]
    out = "".join(released(Window(size), masked, pieces))
    assert SECRET not in out
    assert len(out) == len(text)


@given(st.lists(st.text("sk-1234 ", max_size=4), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_windows_in_a_row_lose_nothing_and_repeat_nothing(pieces, first_size, second_size):
    """What the first lets go of, its rest at the end too, passes through the second."""
    first, second = Window(first_size), Window(second_size)
    out = ""
    for piece in [*pieces, None]:
        passed = first.flush() if piece is None else first.settle(masked(first.take(piece)))
        out += second.settle(second.take(passed).upper())
    alone = "".join(released(Window(first_size), masked, pieces))
    assert out + second.flush() == alone.upper()


@given(st.lists(st.text("sk-1234", max_size=4), max_size=10), st.integers(0, 12))
def test_a_hook_sees_no_text_twice_but_what_it_returned_itself(pieces, size):
    """Each call is the part that the last one left unreleased, and one new piece behind it."""
    window, left = Window(size), ""
    for piece in pieces:
        assert window.take(piece) == left + piece
        text = masked(left + piece)
        out = window.settle(text)
        left = text[len(out) :]
        assert len(left) == min(size, len(text))


def test_without_a_window_everything_goes_out_at_once():
    assert released(Window(0), str.upper, ["a", "b"]) == ["A", "B", ""]
