"""Foreign schemas cost a worker process its time and memory, and never the event loop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from nous.schemas.checker import MAX_SCHEMA_BYTES, MAX_WORKERS, CheckFailedError, SchemaChecker
from nous.system import procfs
from tests.support.raw import until

pytestmark = pytest.mark.anyio

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PATTERN: dict[str, Any] = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}
HOSTILE = {"a": "a" * 60 + "!"}
OBJECTS = "[" + ",".join(f'{{"a": {number}}}' for number in range(20_000)) + "]"
DEADLINE_S = 60


def nested_choice(levels: int) -> dict[str, Any]:
    """Return a schema that is evaluated 2 ** levels times and reports as many errors."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [schema, schema]}
    return schema


@asynccontextmanager
async def running(**bounds: int) -> AsyncIterator[SchemaChecker]:
    checker = SchemaChecker(**bounds)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(checker.run)
            yield checker
            tasks.cancel_scope.cancel()


def workers() -> set[int]:
    """Return the worker processes of this test that are alive."""
    found = set()
    for pid in procfs.children_of(os.getpid()):
        stat = procfs.read_stat(pid)
        if stat is not None and not stat.is_dead:
            found.add(pid)
    return found


async def test_verdicts() -> None:
    async with running() as checker:
        schema: dict[str, Any] = {"type": "string", "pattern": "^h"}
        assert await checker.check_schema(schema) is None
        assert await checker.find_fault(schema, '"h\u00e9llo \U0001f600"') is None
        assert await checker.find_fault(schema, "7") == '$: breaks type ("string") of the schema'
        assert await checker.find_fault(schema, "") == "$: not JSON: Expecting value (character 0)"
        assert await checker.find_fault(schema, '"\ud800"') == "$: not JSON: half of a surrogate pair"
        assert await checker.find_fault(schema, '"' + "h" * 3_000_000 + '"') is None
        assert await checker.check_tools({"one": PATTERN, "two": {"type": "object"}}) is None
        assert await checker.check_tools({"one": PATTERN, "two": {}}) == 'the tool two: $: its type is not "object"'
        assert await checker.find_argument_fault(PATTERN, {"a": "aa"}) is None
        assert await checker.find_argument_fault(PATTERN, {"a": "b"}) == "a: 'b' does not match '^(a+)+$'"


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"multipleOf": 1e400}, "$: holds a number that is too large"),
        ({"const": {"a": [1e400]}}, "$: holds a number that is too large"),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "type": [7]}, "$.type[0]: breaks "),
        ({"$schema": "http://json-schema.org/draft-03/schema#", "extends": 7}, "$.extends: breaks "),
        ({"description": "a" * MAX_SCHEMA_BYTES}, f"$: the schema is longer than {MAX_SCHEMA_BYTES} bytes"),
    ],
)
async def test_odd_schemas_are_refused_by_name(schema: dict[str, Any], fault: str) -> None:
    async with running() as checker:
        found = await checker.check_schema(schema)
        assert found is not None
        assert found.startswith(fault)


async def test_what_the_library_cannot_evaluate_does_not_pass() -> None:
    async with running() as checker:
        draft3 = {"$schema": "http://json-schema.org/draft-03/schema#", "type": [{"$ref": 7}, {"pattern": 7}]}
        fault = await checker.find_fault(draft3, '"a"')
        assert fault is not None
        assert fault.startswith("$: it cannot be evaluated (")
        too_large = {"multipleOf": 10**400}
        assert await checker.find_fault(too_large, "1.5") == "$: it cannot be evaluated (OverflowError)"
        # The same worker goes on.
        assert await checker.find_fault({"multipleOf": 0.1}, "1" * 400) is not None
        assert await checker.find_fault({"type": "integer"}, "1" * 400) is None


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize("levels", [300, 900, 50_000])
async def test_schemas_that_nest_too_deeply_are_refused(levels: int) -> None:
    async with running() as checker:
        fault = await checker.check_tools({"one": deep(levels)})
        assert fault is not None
        assert fault.endswith("nested too deeply")


@pytest.mark.parametrize(
    ("kind", "schema", "value"),
    [
        ("arguments", PATTERN, HOSTILE),
        ("answer", PATTERN, '{"a": "' + HOSTILE["a"] + '"}'),
        ("answer", {"uniqueItems": True}, OBJECTS),
        ("answer", nested_choice(40), "1"),
        ("schema", {"$defs": {"a": {}}, "allOf": [{"$ref": "#/$defs/a"} for _ in range(40_000)]}, None),
    ],
)
async def test_a_heavy_check_costs_its_deadline_and_nothing_else_waits(
    kind: str, schema: dict[str, Any], value: Any
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with running(timeout_ms=1500) as checker, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        checks: dict[str, Callable[[], Awaitable[str | None]]] = {
            "schema": lambda: checker.check_schema(schema),
            "answer": lambda: checker.find_fault(schema, value),
            "arguments": lambda: checker.find_argument_fault(schema, value),
        }
        with pytest.raises(CheckFailedError) as caught:
            await checks[kind]()
        assert caught.value.reason == "took longer than 1500 ms to check"
        tasks.cancel_scope.cancel()
    assert ticks > 10


async def test_a_check_that_needs_too_much_memory_is_given_up() -> None:
    async with running(timeout_ms=DEADLINE_S * 1000, memory_bytes=128 << 20) as checker:
        with pytest.raises(CheckFailedError) as caught:
            await checker.find_fault({}, "[" + "{}," * 2_000_000 + "{}]")
        assert caught.value.reason == "took more memory to check than is allowed"
        assert await checker.find_fault({}, "1") is None


@needs_proc
async def test_a_worker_is_kept_and_replaced_once_it_died() -> None:
    before = workers()
    async with running() as checker:
        assert await checker.check_schema({}) is None
        [first] = workers() - before
        assert await checker.find_fault({}, "1") is None
        assert workers() - before == {first}
        os.kill(first, signal.SIGKILL)
        await until(lambda: first not in workers())
        assert await checker.find_fault({}, "1") is None
        [second] = workers() - before
        assert second != first
    assert workers() == before


@needs_proc
async def test_a_worker_that_dies_during_a_check_gives_no_verdict() -> None:
    before = workers()
    async with running() as checker, anyio.create_task_group() as tasks:

        async def kill() -> None:
            await until(lambda: bool(workers() - before))
            [worker] = workers() - before
            os.kill(worker, signal.SIGKILL)

        tasks.start_soon(kill)
        with pytest.raises(CheckFailedError, match="the process that checks schemas died"):
            await checker.find_argument_fault(PATTERN, HOSTILE)
        assert await checker.find_argument_fault(PATTERN, {"a": "aa"}) is None


@needs_proc
async def test_leaving_a_check_ends_its_worker() -> None:
    before = workers()
    async with running() as checker:
        with anyio.move_on_after(1) as scope:
            await checker.find_argument_fault(PATTERN, HOSTILE)
        assert scope.cancelled_caught
        assert workers() == before


@needs_proc
async def test_an_idle_worker_ends() -> None:
    before = workers()
    async with running(idle_ms=50) as checker:
        for _ in range(2):
            assert await checker.check_schema({}) is None
            await until(lambda: workers() == before)


@needs_proc
async def test_workers_are_bounded_and_all_are_gone_at_the_end() -> None:
    before = workers()
    verdicts: list[str | None] = []
    most = 0
    async with running() as checker:

        async def check(number: int) -> None:
            nonlocal most
            verdicts.append(await checker.find_fault({"const": number}, str(number)))
            most = max(most, len(workers() - before))

        async with anyio.create_task_group() as tasks:
            for number in range(3 * MAX_WORKERS):
                tasks.start_soon(check, number)
        assert verdicts == [None] * 3 * MAX_WORKERS
        assert 1 <= most <= MAX_WORKERS
    assert workers() == before
