"""Check what readers rely on: no import cycles, one class for each public name, a docstring for each public name.

Imports under ``TYPE_CHECKING`` and inside functions count.  What is not yet so stands in ``structure_debt.json``, a
list that may shrink and never grow.  ``--write`` writes it anew.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DEBT: Final = Path(__file__).with_name("structure_debt.json")

Findings = dict[str, list[str]]


def modules(root: Path) -> dict[str, ast.Module]:
    """Return the syntax trees of the package ``nous`` below ``root`` by module name."""
    found: dict[str, ast.Module] = {}
    for path in sorted((root / "nous").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Return the modules of the package that a module imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return (found & known) - {name}


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return the groups of modules that import each other, each as one line (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(" ".join(sorted(group)))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Yield the public classes, functions and methods of a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node.name):
            yield f"{prefix}{node.name}", node  # type: ignore[misc]
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{prefix}{node.name}.")


def names_defined_twice(trees: dict[str, ast.Module]) -> list[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and is_public(node.name):
                places[node.name].append(module)
    return sorted(f"{name}: {' '.join(where)}" for name, where in places.items() if len(where) > 1)


def without_docstring(trees: dict[str, ast.Module]) -> list[str]:
    found = [name for name, tree in trees.items() if ast.get_docstring(tree) is None]
    for module, tree in trees.items():
        found += [f"{module}.{name}" for name, node in definitions(tree) if ast.get_docstring(node) is None]
    return sorted(found)


def findings(root: Path) -> Findings:
    """Return all findings below ``root``, by kind."""
    trees = modules(root)
    known = set(trees)
    return {
        "import cycles": cycles({name: imports(name, tree, known) for name, tree in trees.items()}),
        "class names defined twice": names_defined_twice(trees),
        "public names without a docstring": without_docstring(trees),
    }


def main(arguments: list[str], root: Path = ROOT, debt: Path = DEBT) -> int:
    now = findings(root)
    if arguments == ["--write"]:
        debt.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return 0
    known: Findings = json.loads(debt.read_text(encoding="utf-8"))
    failed = False
    for kind, found in now.items():
        new, gone = sorted(set(found) - set(known[kind])), sorted(set(known[kind]) - set(found))
        for line in new:
            print(f"{kind}: {line}")
        if gone:
            print(f"{kind}: {len(gone)} of the list are mended; type: python scripts/check_structure.py --write")
        failed |= bool(new or gone)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
