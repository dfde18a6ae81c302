"""What a guard that ships has to say of a call, and how it refuses one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE = "Violated content safety policy"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard found in a call that it refuses.

    Attributes:
        categories: What the call violates, by the guard's own codes or names; none if it did not say.
        scores: How sure it is of a category, where it says so: 0 to 1.
    """

    categories: tuple[str, ...]
    scores: Mapping[str, float] = field(default_factory=dict)


class ViolationError(Exception):
    """A call is refused: HTTP 400 in the endpoint's envelope.

    Args:
        verdict: Why; failure and log hooks find it here.
        named: The categories as the client is told them.
    """

    status_code = 400
    code = "content_policy_violation"

    def __init__(self, verdict: Verdict, named: str) -> None:
        self.verdict = verdict
        self.message = f"{MESSAGE}: {named}" if named else MESSAGE
        super().__init__(self.message)
