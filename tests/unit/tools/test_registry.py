"""The set of tools: what each is called, what it says it takes, and what it costs to have them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nous.ports.tool import Tool
from nous.tools.registry import builtin_tools
from tests.support.home import ROOT
from tests.unit.tools.toolroom import DEADLINE_S, Room

pytestmark = pytest.mark.anyio

NAMES = ["read", "write", "edit", "bash", "grep", "find", "ls"]
TOOLS = {tool.name: tool for tool in builtin_tools()}


def test_the_tools_and_their_order() -> None:
    assert list(TOOLS) == NAMES
    assert {tool.source for tool in TOOLS.values()} == {"builtin"}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=NAMES)
def test_schemas_are_plain_objects_that_describe_every_field(tool: Tool) -> None:
    Draft202012Validator.check_schema(tool.schema)
    assert set(tool.schema) <= {"type", "properties", "required", "additionalProperties"}
    assert tool.schema["type"] == "object"
    assert all(field["description"] and field["type"] for field in tool.schema["properties"].values())
    assert 20 < len(tool.description) < 400


@pytest.mark.parametrize("tool", TOOLS.values(), ids=NAMES)
def test_defaults_are_what_the_schema_says(tool: Tool) -> None:
    validator = Draft202012Validator(tool.schema)
    defaults = {name: field["default"] for name, field in tool.schema["properties"].items() if "default" in field}
    required = dict.fromkeys(tool.schema.get("required", []), "x")
    assert list(validator.iter_errors({**defaults, **required})) == []


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=NAMES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.dictionaries(st.sampled_from(["unknown", "limit", "offset", "timeout", "context"]), JSON, min_size=1))
async def test_any_object_is_answered(room: Room, tool: Tool, given: dict[str, Any]) -> None:
    result = await room.run(tool, **given, unknown_too=1)
    assert result.outcome == "invalid_arguments"
    assert result.text
    result.text.encode()


def test_having_the_tools_imports_nothing_heavy() -> None:
    program = (
        "import sys, anyio, msgspec; anyio.run(anyio.sleep, 0); before = set(sys.modules);"
        "from nous.tools.registry import builtin_tools; builtin_tools();"
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=DEADLINE_S
    ).stdout
    imported = set(output.decode().split())
    heavy = {"pathspec", "ctypes", "difflib", "json", "hashlib", "tempfile", "shutil", "dataclasses", "multiprocessing"}
    assert heavy & imported == set()
    outside = {name.partition(".")[0] for name in imported} - {"nous", "msgspec"}
    assert outside <= set(sys.stdlib_module_names) | {"anyio"}
