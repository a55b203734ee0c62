"""Draw the states of a run, from the engine's table of transitions, into docs/engine.md.

Without arguments the page is written anew; ``--check`` exits 1 if it is not what the table says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from nous.engine.inputs import HookAnswered, Input
from nous.engine.transitions import AFTER_HOOK, TRANSITIONS, Phase

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "engine.md"

BEGIN: Final = "<!-- drawn by scripts/draw_states.py: begin -->"
END: Final = "<!-- drawn by scripts/draw_states.py: end -->"


def name_of(kind: type[Input]) -> str:
    return str(kind.__struct_config__.tag)


def steady_inputs() -> list[type[Input]]:
    """Return the inputs that every active state takes and that lead nowhere: left out of the drawing."""
    active = {state for state, _ in TRANSITIONS} - {Phase.READY}
    kinds = dict.fromkeys(kind for _, kind in TRANSITIONS)
    return [
        kind
        for kind in kinds
        if all((state, kind) in TRANSITIONS and TRANSITIONS[state, kind].to == {state} for state in active)
    ]


def edges() -> dict[tuple[Phase, Phase], list[str]]:
    """Return the names of the inputs that lead from one state to another, in the order of the states."""
    steady, order = steady_inputs(), list(Phase)
    found: dict[tuple[Phase, Phase], list[str]] = {}
    for row in TRANSITIONS.values():
        if row.input not in steady:
            for to in sorted(row.to, key=order.index):
                names = found.setdefault((row.state, to), [])
                if row.input is HookAnswered:
                    hooks = [then.value for then, after in AFTER_HOOK.items() if to in after]
                    names.append(f"{name_of(row.input)} ({' or '.join(hooks)})")
                else:
                    names.append(name_of(row.input))
    return dict(sorted(found.items(), key=lambda edge: (order.index(edge[0][0]), order.index(edge[0][1]))))


def drawing() -> str:
    """Return what stands between the marks: the diagram, and what it leaves out."""
    lines = [f"    {start.value} --> {to.value}: {', '.join(names)}" for (start, to), names in edges().items()]
    steady = ", ".join(f"`{name_of(kind)}`" for kind in steady_inputs())
    return "\n".join(
        [
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {Phase.READY.value}",
            *lines,
            f"    {Phase.ENDED.value} --> [*]",
            "```",
            "",
            f"Taken in every state between the first and the last, which they do not change: {steady}.",
        ]
    )


def redrawn(page: str) -> str:
    """Return the page with its drawing made anew.  Raises ``ValueError`` if the marks are not there, once each."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError("the marks of the drawing do not stand in the page, once each")
    return f"{before}{BEGIN}\n{drawing()}\n{END}{after}"


def main(arguments: list[str], page: Path = PAGE) -> int:
    text = page.read_text(encoding="utf-8")
    fresh = redrawn(text)
    if arguments == ["--check"]:
        if fresh != text:
            print(f"docs/{page.name} is not what the engine's table says; type: python scripts/draw_states.py")
        return int(fresh != text)
    page.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
