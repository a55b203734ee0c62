"""``make bench`` measures everything and prints a table; ``make bench-budgets`` also judges it (see README.md)."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.bench.budgets import check_budgets, target_of
from scripts.bench.measures import MEASURES, REPEATS, Figures
from scripts.bench.programs import provider

ROOT: Final = Path(__file__).resolve().parents[2]
Rows = dict[str, list[float]]


def main() -> int:
    options = make_parser().parse_args()
    # As it is installed: where the environment forbids writing byte code, every start would compile the sources anew.
    compileall.compile_dir(ROOT / "nous", quiet=1)
    rows: Rows = {}
    with provider() as made:
        for name in options.names or MEASURES:
            for _ in range(options.rounds or REPEATS.get(name, 3)):
                for figure, value in with_ratios(MEASURES[name](made)).items():
                    rows.setdefault(figure, []).append(value)
            print(f"  {name} done", file=sys.stderr)
    print_table(rows)
    if options.json is not None:
        write_json(options.json, rows)
    return judge(rows) if options.budgets else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("names", nargs="*", help="which measures; all if left out")
    parser.add_argument("--json", type=Path, default=None, help="write the figures there")
    parser.add_argument(
        "--rounds", type=int, default=0, help="how often each is taken; left out: as its noise asks for"
    )
    parser.add_argument("--budgets", action="store_true", help="fail if a budget is not kept")
    return parser


def with_ratios(figures: Figures) -> Figures:
    """Add nous over floor wherever a round has both: what else the machine did was done to both of them."""
    ratios: Figures = {}
    for figure, value in figures.items():
        name = figure.removeprefix("nous ")
        floor = figures.get(f"floor {name}")
        if name != figure and floor:
            ratios[f"{without_unit(name)} ratio"] = value / floor
    return figures | ratios


def without_unit(name: str) -> str:
    """Return a figure's name without the unit at its end; a rate's ``per s`` says what it is and stays."""
    stem, _, unit = name.rpartition(" ")
    return name if stem.endswith("deltas per") else stem if unit in ("ms", "s", "MB", "us") else name


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "spread": statistics.pstdev(values),
        "rounds": len(values),
    }


def print_table(rows: Mapping[str, Sequence[float]]) -> None:
    print(f"{'figure':<40}{'median':>12}{'min':>12}{'max':>12}{'spread':>10}{'target':>10}")
    for figure, values in rows.items():
        found = summary(values)
        cells = "".join(f"{found[key]:>12.3f}" for key in ("median", "min", "max"))
        print(f"{figure:<40}{cells}{found['spread']:>10.3f}{target_of(figure):>10}")


def write_json(path: Path, rows: Mapping[str, Sequence[float]]) -> None:
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    figures = {figure: summary(values) for figure, values in rows.items()}
    path.write_text(json.dumps({**machine, "figures": figures}, indent=2) + "\n", encoding="utf-8")


def judge(rows: Mapping[str, Sequence[float]]) -> int:
    """Print a line per budget; return 1 if one is not kept."""
    verdicts = check_budgets({figure: statistics.median(values) for figure, values in rows.items()})
    for kept, line in verdicts:
        print(f"{'PASS' if kept else 'FAIL'} {line}")
    return 0 if all(kept for kept, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
