"""``nous init``: makes the state directory, and records that it did."""

from __future__ import annotations

from collections.abc import Sequence

from nous.cli.answer import succeed
from nous.cli.options import OptionParser, add_state_flags, parse, state_root
from nous.cli.terminal import say
from nous.system.state_dir import init_state_dir


def run(arguments: Sequence[str]) -> int:
    """Make the state directory."""
    parser = OptionParser(prog="nous init", description="Make the state directory. Nothing else ever makes it unasked.")
    add_state_flags(parser)
    parser.add_argument("--json", action="store_true", help="answer with one object")
    options = parse(parser, arguments)
    root = state_root(options)
    created = init_state_dir(root, "nous init")
    if options.json:
        return succeed(state_dir=str(root), created=created)
    say(f"{'made' if created else 'already there'}: {root}")
    return 0
