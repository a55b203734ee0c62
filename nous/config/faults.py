"""The plan of ``nous serve --faults FILE``: what is to go wrong on purpose, how often, and from which seed.

    seed: 7
    provider: {rate: 0.3, kinds: [unavailable, cut]}
    tool: {rate: 0.1}
    disk: {rate: 0.05, kinds: [full]}
    client: {rate: 0.02}

A part that is left out never fails; without ``kinds`` all of its kinds happen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from nous.config.yaml_file import parse_yaml, read_source
from nous.errors import NousError

Rate = Annotated[float, Meta(ge=0, le=1)]
ProviderFault = Literal["unavailable", "permanent", "cut"]
ToolFault = Literal["error", "crash"]
DiskFault = Literal["full", "broken"]
ClientFault = Literal["gone"]

EXPECTED: Final = "expected a plan of faults (see docs/faults.md)"


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    rate: Rate = 0.0


class ProviderFaults(_Part, frozen=True):
    """``unavailable`` and ``permanent`` fail a call before it says anything, ``cut`` after its first words."""

    kinds: tuple[ProviderFault, ...] = ("unavailable", "permanent", "cut")


class ToolFaults(_Part, frozen=True):
    """A tool is not run: it fails in order, or it crashes."""

    kinds: tuple[ToolFault, ...] = ("error", "crash")


class DiskFaults(_Part, frozen=True):
    """An entry cannot be appended to its session: no space is left, or the device fails."""

    kinds: tuple[DiskFault, ...] = ("full", "broken")


class ClientFaults(_Part, frozen=True):
    """Whoever asked goes away while the model answers: the run is aborted."""

    kinds: tuple[ClientFault, ...] = ("gone",)


class FaultPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """A plan of faults, drawn from a seed: which calls of providers, tools and disks fail, and how."""

    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    provider: ProviderFaults = ProviderFaults()
    tool: ToolFaults = ToolFaults()
    disk: DiskFaults = DiskFaults()
    client: ClientFaults = ClientFaults()


def read_fault_plan(path: Path) -> FaultPlan:
    """Read a plan.

    Raises:
        NousError: ``invalid_config`` naming the file and what is wrong in it.
    """
    try:
        plan = msgspec.convert(parse_yaml(read_source(path)).plain(), FaultPlan)
    except FileNotFoundError:
        raise NousError("invalid_config", f"{path}: no such file", hint="--faults names a file.") from None
    except msgspec.ValidationError as error:
        raise NousError("invalid_config", f"{path}: {error}", hint=EXPECTED) from None
    for name in ("provider", "tool", "disk", "client"):
        part = getattr(plan, name)
        if part.rate and not part.kinds:
            raise NousError("invalid_config", f"{path}: {name}.kinds: none is named", hint=EXPECTED)
    return plan
