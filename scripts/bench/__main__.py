"""``make bench``: measures everything, prints a table, writes ``results.json`` beside it (see README.md)."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

from scripts.bench.measures import MEASURES, REPEATS
from scripts.bench.programs import provider


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("names", nargs="*", help="which measures; all if left out")
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    with provider() as made:
        for name in options.names or MEASURES:
            for _ in range(REPEATS.get(name, 3)):
                for figure, value in MEASURES[name](made).items():
                    rows.setdefault(figure, []).append(value)
            print(f"  {name} done", file=sys.stderr)
    print(f"{'figure':<38}{'median':>12}{'min':>12}{'max':>12}")
    for figure, values in rows.items():
        print(f"{figure:<38}{statistics.median(values):>12.3f}{min(values):>12.3f}{max(values):>12.3f}")
    if options.json is not None:
        figures = {k: {"median": statistics.median(v), "min": min(v), "max": max(v)} for k, v in rows.items()}
        options.json.write_text(
            json.dumps({"python": platform.python_version(), "figures": figures}, indent=2) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
