"""The system prompt: who the agent is, where it works, what it may use, and the workdir's AGENTS.md."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nous.telemetry.log import get_log

AGENTS_FILE: Final = "AGENTS.md"
MAX_AGENTS_BYTES: Final = 32 * 1024

_IDENTITY: Final = """\
You are an agent that helps a person with the files and commands of one directory. Work on your own until the task is
done: look before you change anything, make the smallest change that does it, and check what you did. Say plainly what
you did and what you could not do. Never invent the content of files or the output of commands."""

log = get_log("runtime")


def build_system_prompt(*, override: str | None, workdir: Path, tools: Sequence[str], agents_text: str | None) -> str:
    """Return the prompt; ``override`` replaces the first part, never the facts about this run."""
    names = ", ".join(tools) if tools else "none"
    parts = [override if override is not None else _IDENTITY, f"Working directory: {workdir}", f"Tools: {names}"]
    if agents_text:
        parts.append(f"Instructions of this directory ({AGENTS_FILE}):\n\n{agents_text}")
    return "\n\n".join(parts)


def read_agents_file(workdir: Path) -> str | None:
    """Return AGENTS.md of the workdir, cut to 32 KiB; None if there is none that tools could read too.

    The same rule as for tools: a link that leads out of the workdir is not followed.
    """
    path = workdir / AGENTS_FILE
    # Asked by every run, and mostly there is none: one look, before any of what is careful about links.
    if not os.path.lexists(path):
        return None
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(workdir.resolve()) or not real.is_file():
            log.warning("agents_file_ignored", reason="outside the workdir or not a file")
            return None
        with real.open("rb") as file:
            data = file.read(MAX_AGENTS_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        # A link to itself is a RuntimeError before Python 3.13.
        log.warning("agents_file_ignored", reason=getattr(error, "strerror", None) or "a loop of links")
        return None
    text = data[:MAX_AGENTS_BYTES].decode("utf-8", "ignore" if len(data) > MAX_AGENTS_BYTES else "replace")
    return text + "\n[cut at 32 KiB]" if len(data) > MAX_AGENTS_BYTES else text
