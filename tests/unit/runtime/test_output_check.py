"""Checking an answer never holds up the daemon: hostile patterns cost a process of their own its time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from nous.runtime.output_check import check_answer, has_patterns

pytestmark = pytest.mark.anyio

HOSTILE = {"properties": {"a": {"pattern": "^(a+)+$"}}}
DEADLINE_S = 30


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({}, False),
        ({"type": "string", "enum": ["pattern"]}, False),
        ({"pattern": "a"}, True),
        ({"items": [{"anyOf": [{"patternProperties": {}}]}]}, True),
        ({"properties": {"pattern": {}}}, True),
    ],
)
def test_where_patterns_may_be(schema: dict[str, Any], found: bool) -> None:
    assert has_patterns(schema) is found


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": "string", "pattern": "^h"}])
async def test_here_and_apart_the_same_is_found(schema: dict[str, Any]) -> None:
    with anyio.fail_after(DEADLINE_S):
        assert await check_answer(schema, '"h\u00e9llo \U0001f600"') is None
        assert await check_answer(schema, "7") == '$: breaks type ("string") of the schema'
        assert await check_answer(schema, "") == "$: not JSON: Expecting value (character 0)"
        assert await check_answer(schema, '"' + "h" * 3_000_000 + '"') is None


async def test_a_hostile_pattern_costs_its_deadline_and_nothing_else_waits() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            fault = await check_answer(HOSTILE, '{"a": "' + "a" * 60 + '!"}', timeout_ms=1500)
            tasks.cancel_scope.cancel()
    assert fault == "$: the check took more than 1500 ms: a pattern of the schema?"
    assert ticks > 10


async def test_leaving_ends_the_check() -> None:
    with anyio.fail_after(DEADLINE_S):
        with anyio.move_on_after(0.5) as scope:
            await check_answer(HOSTILE, '{"a": "' + "a" * 60 + '!"}')
        assert scope.cancelled_caught
