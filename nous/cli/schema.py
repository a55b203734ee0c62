"""``nous schema``: the protocol's JSON Schema, as generated from the structs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nous.cli.answer import print_json
from nous.cli.options import Parser, parse
from nous.protocol.schema import documents, render


def run(arguments: Sequence[str]) -> int:
    parser = Parser(prog="nous schema", description="Print the protocol's JSON Schema, or write it to a directory.")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write one file per document there")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is JSON anyway")
    options = parse(parser, arguments)
    if options.out is None:
        print_json(documents())
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (options.out / name).write_bytes(render(document))
        print(options.out / name)
    return 0
