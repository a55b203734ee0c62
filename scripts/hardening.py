"""What hardening promises, requirement by requirement: one PASS or FAIL line each; exits with 1 on any FAIL.

    python -m scripts.hardening [--only PREFIX ...]

Offline: the tests behind it open no socket beyond loopback.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MAX_SECONDS: Final = 900

REQUIREMENTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "H1": (
        "a seeded plan of faults: runs end in order, traces replay",
        ("tests/process/test_fault_plan.py",),
    ),
    "H2": ("faults of providers fail their run alone", ("tests/process/test_faults.py",)),
    "H3": ("transient failures are retried, bounded, and never after a word", ("tests/process/test_retry.py",)),
    "H4": ("faults of tools: memory, time, children that break away", ("tests/process/test_tool_faults.py",)),
    "H5": ("faults of extensions stay theirs", ("tests/process/test_extension_faults.py",)),
    "H6": (
        "every system call of the store may fail: nothing acknowledged is lost",
        ("tests/unit/store/test_faults.py", "tests/unit/store/test_session_faults.py"),
    ),
    "H7": (
        "contention: waiting is bounded, a dead owner frees its lock",
        ("tests/unit/store/test_locks.py", "tests/unit/store/test_session_processes.py"),
    ),
    "H8": (
        "writes are whole or not at all",
        ("tests/unit/store/test_disk.py", "tests/unit/store/test_torn.py", "tests/unit/system/test_atomic.py"),
    ),
    "H9": ("every code by its real cause, on the wire and in the log", ("tests/process/test_taxonomy.py",)),
    "H10": (
        "exit codes and envelopes of every command",
        ("tests/process/test_cli_golden.py", "tests/process/test_every_command.py"),
    ),
    "H11": ("no command makes a state directory by itself", ("tests/process/test_consent.py",)),
    "H12": ("what the daemon holds as a secret stands nowhere", ("tests/process/test_secrets.py",)),
    "H13": ("retention removes whole units, never a live one", ("tests/process/test_gc.py",)),
}
"""Each requirement with the tests that prove it."""


def run_tests(paths: tuple[str, ...]) -> str | None:
    """Run tests; return None if all passed, else what pytest said last."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not full", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=MAX_SECONDS, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.decode("utf-8", "replace").split("\n") if line.strip()]
    return lines[-1] if lines else f"pytest ended with {done.returncode}"


def holds(name: str) -> bool:
    requirement, paths = REQUIREMENTS[name]
    begun = time.monotonic()
    try:
        failure = run_tests(paths)
    except subprocess.TimeoutExpired:
        failure = f"not done after {MAX_SECONDS} s"
    verdict = "PASS" if failure is None else "FAIL"
    detail = f"({time.monotonic() - begun:.1f} s)" if failure is None else failure
    print(f"{verdict} {name} {requirement}: {detail}", flush=True)
    return failure is None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.hardening", description="What hardening promises.")
    parser.add_argument("--only", action="append", metavar="NAME", choices=REQUIREMENTS, help="only this requirement")
    options = parser.parse_args(arguments)
    results = [holds(name) for name in options.only or REQUIREMENTS]
    print(f"{sum(results)} of {len(results)} requirements hold")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
