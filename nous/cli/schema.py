"""``nous schema``: the protocol's JSON Schema, as generated from the structs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nous.cli.answer import print_json, succeed
from nous.cli.options import OptionParser, add_state_flags, parse
from nous.cli.terminal import say_value
from nous.errors import EXIT_OK
from nous.protocol.schema import documents, render


def run(arguments: Sequence[str]) -> int:
    """Print the protocol's JSON Schema, or write it to a directory."""
    parser = OptionParser(
        prog="nous schema", description="Print the protocol's JSON Schema, or write it to a directory."
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write one file per document there")
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    options = parse(parser, arguments)
    if options.out is None:
        return succeed(documents=documents()) if options.json else print_json(documents())
    options.out.mkdir(parents=True, exist_ok=True)
    paths = [write(options.out / name, document) for name, document in documents().items()]
    if options.json:
        return succeed(files=[str(path) for path in paths])
    for path in paths:
        say_value(str(path))
    return EXIT_OK


def write(path: Path, document: dict[str, Any]) -> Path:
    """Write a document; return its path."""
    path.write_bytes(render(document))
    return path
