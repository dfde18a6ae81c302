"""Methods of a request to `/v1/chat/completions`.

Rows: method; has it a body; the gate's verdict; which frameworks run their handler with no gate before them, where the
handler's route lists the common methods and QUERY.
"""

from __future__ import annotations

from typing import NamedTuple

SFD, D, NONE = "SFD", "D", ""


class Method(NamedTuple):
    method: str
    body: bool
    verdict: str
    bare: str


METHODS = [
    Method("POST", True, "seen", SFD),
    Method("POST", False, "refused", NONE),
    Method("post", True, "seen", D),
    Method("Post", True, "seen", D),
    Method("post", False, "refused", NONE),
    Method("GET", True, "seen", SFD),
    Method("GET", False, "passed", NONE),
    Method("get", True, "seen", D),
    Method("HEAD", True, "seen", SFD),
    Method("HEAD", False, "passed", NONE),
    Method("QUERY", True, "seen", SFD),
    Method("QUERY", False, "passed", NONE),
    Method("PUT", True, "seen", SFD),
    Method("PUT", False, "passed", NONE),
    Method("PATCH", True, "seen", SFD),
    Method("DELETE", True, "seen", SFD),
    Method("DELETE", False, "passed", NONE),
    Method("OPTIONS", True, "seen", SFD),
    Method("OPTIONS", False, "passed", NONE),
    Method("BREW", True, "seen", D),
    Method("BREW", False, "passed", NONE),
]
