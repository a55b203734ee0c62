"""The program that changes a long text, run as a child of its own (see :mod:`nous.tools.edit`)."""

from __future__ import annotations

import marshal
import os
import sys
from typing import Any

from nous.tools.changing import Replacement, change_text
from nous.tools.failure import ToolFailure


def main() -> None:
    """Read a request from the descriptor that the argument names, write the failure, the changed file and the diff."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        data, given, old, new, replaces_all, name = marshal.load(file)
    answer: tuple[Any, ...]
    try:
        answer = (None, *change_text(data, Replacement(given, old, new, replaces_all), name))
    except ToolFailure as failure:
        answer = (str(failure), b"", "")
    marshal.dump(answer, sys.stdout.buffer)
