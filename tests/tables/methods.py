"""Methods of a request to `/v1/chat/completions`.

Rows: method; has it a body; the gate's verdict; which frameworks run their handler with no gate before them, where the
handler's route lists the common methods and QUERY.
"""

from __future__ import annotations

from typing import NamedTuple

SFMD, D, NONE = "SFMD", "D", ""


class Method(NamedTuple):
    method: str
    body: bool
    verdict: str
    bare: str


METHODS = [
    Method("POST", True, "seen", SFMD),
    Method("POST", False, "refused", NONE),
    Method("post", True, "seen", D),
    Method("Post", True, "seen", D),
    Method("post", False, "refused", NONE),
    Method("GET", True, "seen", SFMD),
    Method("GET", False, "passed", NONE),
    Method("get", True, "seen", D),
    Method("HEAD", True, "seen", SFMD),
    Method("HEAD", False, "passed", NONE),
    Method("QUERY", True, "seen", SFMD),
    Method("QUERY", False, "passed", NONE),
    Method("PUT", True, "seen", SFMD),
    Method("PUT", False, "passed", NONE),
    Method("PATCH", True, "seen", SFMD),
    Method("DELETE", True, "seen", SFMD),
    Method("DELETE", False, "passed", NONE),
    Method("OPTIONS", True, "seen", SFMD),
    Method("OPTIONS", False, "passed", NONE),
    Method("BREW", True, "seen", D),
    Method("BREW", False, "passed", NONE),
]
