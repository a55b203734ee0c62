"""Check that the generated files of the repository are what the code generates; ``--write`` makes them so."""

from __future__ import annotations

import sys
from pathlib import Path

from nous.protocol.schema import documents, render

ROOT = Path(__file__).resolve().parent.parent


def generated() -> dict[Path, bytes]:
    """Return every generated file, relative to the root, and what it must hold."""
    return {Path("protocol/v1") / name: render(document) for name, document in documents().items()}


def drifted(root: Path) -> list[Path]:
    """Return the generated files under ``root`` that are missing or differ."""
    return [
        path for path, data in generated().items() if not (root / path).is_file() or (root / path).read_bytes() != data
    ]


def write(root: Path) -> None:
    for path, data in generated().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        write(ROOT)
        return 0
    stale = drifted(ROOT)
    for path in stale:
        print(f"{path} is not what the code generates", file=sys.stderr)
    if stale:
        print("Type: make schema (and add a line to protocol/v1/CHANGELOG.md)", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
