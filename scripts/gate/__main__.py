"""The milestone gate: one PASS or FAIL line per requirement; exits with 1 on any FAIL, 6 on wrong usage.

    python -m scripts.gate [--only PREFIX ...]

Offline: every process it starts notes sockets that leave this machine, and one note is a FAIL.  M4_GATE_LIVE_SMOKE=1
adds one prompt to a live provider, which fails without a key.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio

from scripts.gate import compat, deadlines, freeze, leaves, offline, replays, stream_first
from scripts.gate.checks import CHECK_SECONDS, Check, Place, Table

OFFLINE: Table = {
    **freeze.CHECKS,
    **stream_first.CHECKS,
    **replays.CHECKS,
    **leaves.CHECKS,
    **deadlines.CHECKS,
    **offline.CHECKS,
    **compat.CHECKS,
}

NO_SOCKET = ("C1.3", "no socket was opened beyond loopback")


async def perform(check: Check, root: Path, violations: Path) -> str | None:
    """Run a check in a fresh place and return what it saw.  Raises what it raised, TimeoutError past its bound."""
    with anyio.fail_after(CHECK_SECONDS):
        return await check(Place(root, violations))


def passes(name: str, requirement: str, check: Check, violations: Path) -> bool:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nous-gate-") as root:
        try:
            seen = anyio.run(perform, check, Path(root).resolve(), violations)
        except Exception as error:
            print(f"FAIL {name} {requirement}: {describe(error)}", flush=True)
            return False
    print(f"PASS {name} {requirement}: {seen} ({time.monotonic() - begun:.1f} s)", flush=True)
    return True


def describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.gate", description="The milestone gate.")
    parser.add_argument("--only", action="append", metavar="PREFIX", help="only the checks whose id begins with it")
    only = tuple(parser.parse_args(arguments).only or [""])
    table = {**OFFLINE, **(offline.LIVE if offline.live_is_on() else {})}
    chosen = {name: row for name, row in table.items() if name.startswith(only)}
    if not chosen:
        parser.error(f"no check begins with {' or '.join(only)}")
    with tempfile.TemporaryDirectory(prefix="nous-gate-") as place:
        violations = Path(place).resolve() / "violations"
        results = [passes(name, requirement, check, violations) for name, (requirement, check) in chosen.items()]
        if any(name.startswith("L.") for name in chosen):
            return 0 if all(results) else 1
        noted = violations.read_text(encoding="utf-8") if violations.is_file() else ""
    name, requirement = NO_SOCKET
    print(f"{'FAIL' if noted else 'PASS'} {name} {requirement}{': ' + noted[:500] if noted else ''}", flush=True)
    return 0 if all(results) and not noted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
