"""The tools of a daemon: which there are, which are active, and what a model is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from nous.errors import NousError
from nous.ports.model import ToolSpec
from nous.ports.tool import Tool


class Toolbox:
    """``make`` makes the first tools, when somebody asks for one: a start waits for none.

    ``wanted`` are the tools that are active at first (None: all of them); where ``may_grow``, what is not there may
    still come with an extension.
    """

    def __init__(self, make: Callable[[], Iterable[Tool]], wanted: Sequence[str] | None, *, may_grow: bool) -> None:
        """Raises ``invalid_payload`` for a tool that is wanted and will never be there."""
        self._make = make
        self._wanted = wanted
        self._were_chosen = False
        self._specs: dict[tuple[str, ...], tuple[ToolSpec, ...]] = {}
        self._active: tuple[str, ...] | None = None
        if wanted is not None:
            chosen = tuple(dict.fromkeys(name for name in wanted if not may_grow or name in self.tools))
            if (unknown := self._find_unknown(chosen)) is not None:
                raise NousError("invalid_payload", unknown)
            self._active = chosen

    @cached_property
    def tools(self) -> dict[str, Tool]:
        """All of them, by name."""
        return {tool.name: tool for tool in self._make()}

    @property
    def active(self) -> tuple[str, ...]:
        """The names of those that a run begins with."""
        if self._active is None:
            self._active = tuple(self.tools)
        return self._active

    def check(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names in order, once each.  Raises ``command_rejected`` for one that is not registered."""
        chosen = tuple(dict.fromkeys(names))
        if (unknown := self._find_unknown(chosen)) is not None:
            raise NousError("command_rejected", unknown, hint="list_tools names them.")
        return chosen

    def _find_unknown(self, names: Iterable[str]) -> str | None:
        unknown = next((name for name in names if name not in self.tools), None)
        return None if unknown is None else f"tools: no tool is named {unknown[:64]!r}"

    def choose(self, names: tuple[str, ...]) -> None:
        """Let these be active, whatever comes up later."""
        self._active = names
        self._were_chosen = True

    def add(self, tool: Tool) -> None:
        """Register a tool that came up while the daemon was running, or again.

        A new one is active unless the settings or a client say otherwise.  Runs under way go on with the tools that
        they know.
        """
        active = self.active
        is_new = tool.name not in self.tools
        self.tools[tool.name] = tool
        self._specs.clear()
        if is_new and not self._were_chosen and (self._wanted is None or tool.name in self._wanted):
            self._active = (*active, tool.name)

    def remove(self, names: Iterable[str]) -> None:
        """Forget tools.  A run that still calls one gets a result that says so."""
        gone = set(names)
        self._active = tuple(name for name in self.active if name not in gone)
        for name in gone:
            self.tools.pop(name, None)
        self._specs.clear()

    def specs(self, names: tuple[str, ...]) -> tuple[ToolSpec, ...]:
        """Return what a model is told of the named tools.

        A run under way may name tools that went with their extension: these are left out.
        """
        specs = self._specs.get(names)
        if specs is None:
            tools = [self.tools[name] for name in names if name in self.tools]
            specs = self._specs[names] = tuple(ToolSpec(t.name, t.description, t.schema) for t in tools)
        return specs
