"""The flat table of settings: complete, documented, and the way back to the structs loses nothing."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from nous.config.keys import (
    KEYS,
    SECTIONS,
    Key,
    WrongValueError,
    build_settings,
    check_value,
    describe,
    find_key,
    flatten,
    hidden_values,
    parse_text,
)
from nous.config.settings import MAX_TIMEOUT_MS, ProviderName, ProvidersSettings, SessionLockSettings, Settings

VENDORS = [name for name in get_args(ProviderName) if name not in ("mock", "replay")]
FORBIDDEN_OF_A_PROVIDER = ("api_base", "api_key_env", "headers", "allow_insecure")
UNITS = re.compile(r"_(ms|seconds|bytes|mb|tokens)$")
PLACES = {"extensions.priority"}
"""Numbers that say an order only."""


def test_the_promised_defaults() -> None:
    assert flatten(Settings()) == {
        "state_dir": None,
        "provider.name": None,
        "provider.model": None,
        "provider.api_base": None,
        "provider.api_key_env": None,
        "provider.script": None,
        "provider.replay_from": None,
        "provider.replay_speed": "full",
        "provider.replay_drive": "recording",
        "provider.thinking": None,
        "provider.max_output_tokens": None,
        "provider.models_file": None,
        "provider.connect_timeout_ms": 10_000,
        "provider.stream_idle_timeout_ms": 120_000,
        "provider.stream_stall_timeout_ms": 600_000,
        "provider.allow_insecure": False,
        "daemon.profile": "standard",
        "daemon.on_eof": "finish",
        "daemon.drain_timeout_ms": 30_000,
        "daemon.command_timeout_ms": 30_000,
        "daemon.max_line_bytes": 8_388_608,
        "daemon.max_event_bytes": 1_048_576,
        "daemon.max_message_bytes": 33_554_432,
        "daemon.max_runs": 64,
        "daemon.abort_grace_ms": 2_000,
        "daemon.subscriber_buffer_bytes": 8_388_608,
        "daemon.faults": None,
        "daemon.log_level": "info",
        "engine.max_model_calls": 64,
        "engine.compact_at_tokens": 150_000,
        "engine.structured_output_tools": False,
        "engine.compact_keep_tokens": 20_000,
        "retry.max_retries": 3,
        "retry.first_delay_ms": 500,
        "retry.max_delay_ms": 8_000,
        "retry.total_ms": 15_000,
        **{
            f"providers.{name.replace('-', '_')}.{field}": value
            for name in VENDORS
            for field, value in (("api_base", None), ("api_key_env", None), ("allow_insecure", False))
        },
        "tools.active": None,
        "tools.allow_outside_workdir": False,
        "tools.bash_timeout_ms": 120_000,
        "tools.memory_limit_mb": 4096,
        "extensions.enabled": True,
        "extensions.skip": (),
        "prompt.system": None,
        "prompt.system_file": None,
        "prompt.agents_md": True,
        "trace.fsync": "message",
        **dict.fromkeys([path for path in KEYS if path.startswith("retention.")]),
        "operations.log": False,
        "session_lock.profile": "standard",
        "session_lock.timeout_ms": None,
        "session_lock.retry_ms": None,
        "session_lock.stale_after_ms": 60_000,
    }


def test_the_closed_list_of_variables() -> None:
    assert {key.env: key.path for key in KEYS.values() if key.env} == {
        "NOUS_STATE_DIR": "state_dir",
        "NOUS_PROVIDER": "provider.name",
        "NOUS_MODEL": "provider.model",
        "NOUS_API_BASE": "provider.api_base",
        "NOUS_LOG_LEVEL": "daemon.log_level",
        "NOUS_SESSION_LOCK_PROFILE": "session_lock.profile",
        "NOUS_SESSION_LOCK_TIMEOUT_MS": "session_lock.timeout_ms",
        "NOUS_SESSION_LOCK_RETRY_MS": "session_lock.retry_ms",
        "NOUS_SESSION_LOCK_STALE_AFTER_MS": "session_lock.stale_after_ms",
    }


def test_the_flags() -> None:
    assert {key.flag: key.path for key in KEYS.values() if key.flag} == {
        "--state-dir": "state_dir",
        "--provider": "provider.name",
        "--model": "provider.model",
        "--api-base": "provider.api_base",
        "--script": "provider.script",
        "--replay-from": "provider.replay_from",
        "--replay-speed": "provider.replay_speed",
        "--replay-drive": "provider.replay_drive",
        "--on-eof": "daemon.on_eof",
        "--drain-timeout": "daemon.drain_timeout_ms",
        "--command-timeout": "daemon.command_timeout_ms",
        "--max-line-bytes": "daemon.max_line_bytes",
        "--log-level": "daemon.log_level",
        "--tools": "tools.active",
        "--faults": "daemon.faults",
    }


def test_what_a_project_may_never_set() -> None:
    assert {key.path for key in KEYS.values() if key.owner_only} == {
        "state_dir",
        "daemon.profile",
        "daemon.faults",
        "provider.api_base",
        "provider.api_key_env",
        "provider.headers",
        "provider.allow_insecure",
        "tools.allow_outside_workdir",
        *(path for path in KEYS if path.startswith(("extensions.", "operations.", "retention."))),
        *(f"providers.{name.replace('-', '_')}.{field}" for name in VENDORS for field in FORBIDDEN_OF_A_PROVIDER),
    }


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.path)
def test_every_setting_is_documented_once(key: Key) -> None:
    assert re.fullmatch(r"[A-Z].{10,}\.", key.doc), key.doc
    # What is said of one provider is said of each.
    meant = re.sub(r"^providers\.\w+", "providers.openai", key.path)
    assert {
        re.sub(r"^providers\.\w+", "providers.openai", other.path) for other in KEYS.values() if other.doc == key.doc
    } == {meant}


@pytest.mark.parametrize("path", KEYS)
def test_units_stand_in_names(path: str) -> None:
    number = "integer" in describe(KEYS[path].type)
    assert not number or UNITS.search(path) or path.rpartition(".")[2].startswith("max_") or path in PLACES


def test_sections() -> None:
    vendors = {f"providers.{name.replace('-', '_')}" for name in VENDORS}
    rooms = {"provider", "providers", "daemon", "engine", "retry", "tools", "extensions", "prompt"}
    plain = rooms | {"trace", "retention", "operations", "session_lock"}
    assert plain | vendors == SECTIONS


def test_every_vendor_has_a_section_of_its_own() -> None:
    assert set(ProvidersSettings.__struct_fields__) == {name.replace("-", "_") for name in VENDORS}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("provider.name", "provider.name"),
        ("tools.policy.bash", "tools.policy"),
        ("provider.headers.X-Team", "provider.headers"),
        ("tools.policy", None),
        ("tools.policy.", None),
        ("tools.policy.a b", None),
        ("tools.policy.a.b", None),
        ("tools.active.bash", None),
        ("provider", None),
        ("provider.nam", None),
        ("", None),
        (".", None),
        ("name", None),
    ],
)
def test_find(path: str, found: str | None) -> None:
    key = find_key(path)
    assert (key.path if key else None) == found


def test_there_and_back() -> None:
    values = {
        "provider.name": "openai",
        "provider.model": "m",
        "provider.headers.X-Team": "blue",
        "tools.active": ("read", "grep"),
        "tools.policy.bash": "deny",
        "daemon.max_runs": 3,
        "prompt.agents_md": False,
    }
    settings = build_settings(values)
    assert settings.tools.policy == {"bash": "deny"}
    assert flatten(settings) == flatten(Settings()) | values


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("daemon.max_runs", 1),
        ("daemon.drain_timeout_ms", 0),
        ("daemon.command_timeout_ms", MAX_TIMEOUT_MS),
        ("provider.name", "mock"),
        ("provider.name", None),
        ("tools.active", None),
        ("tools.active", []),
        ("tools.active", ["read"]),
        ("tools.policy.bash", "deny"),
        ("prompt.agents_md", False),
        ("provider.api_key_env", "MY_KEY_2"),
        ("session_lock.timeout_ms", None),
    ],
)
def test_fits(path: str, value: object) -> None:
    key = find_key(path)
    assert key is not None
    expected = tuple(value) if isinstance(value, list) else value
    assert check_value(key, value) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("daemon.max_runs", 0, "an integer from 1 to 1000000"),
        ("daemon.max_runs", -1, "an integer from 1 to 1000000"),
        ("daemon.max_runs", 1_000_001, "an integer from 1 to 1000000"),
        ("daemon.max_runs", "3", "an integer from 1 to 1000000"),
        ("daemon.max_runs", 3.0, "an integer from 1 to 1000000"),
        ("daemon.max_runs", True, "an integer from 1 to 1000000"),
        ("daemon.max_runs", None, "an integer from 1 to 1000000"),
        ("daemon.max_runs", [3], "an integer from 1 to 1000000"),
        ("daemon.command_timeout_ms", MAX_TIMEOUT_MS + 1, f"an integer from 1 to {MAX_TIMEOUT_MS}"),
        ("daemon.max_event_bytes", 1000, "an integer from 65536 to 1073741824"),
        ("session_lock.timeout_ms", "5", f"an integer from 0 to {MAX_TIMEOUT_MS}"),
        ("provider.name", "nobody", f"one of {', '.join(get_args(ProviderName))}"),
        ("provider.name", "", f"one of {', '.join(get_args(ProviderName))}"),
        ("daemon.on_eof", "abort ", "one of finish, abort"),
        ("daemon.on_eof", None, "one of finish, abort"),
        ("trace.fsync", False, "one of message, run, off"),
        ("provider.model", "", "a string that is not empty"),
        ("provider.model", 4, "a string that is not empty"),
        ("provider.model", {}, "a string that is not empty"),
        ("prompt.agents_md", 1, "true or false"),
        ("prompt.agents_md", "true", "true or false"),
        ("tools.active", "read", "a list of strings"),
        ("tools.active", ["read", ""], "a list of strings"),
        ("tools.active", ["read", 1], "a list of strings"),
        ("tools.policy.bash", "ask", "one of allow, deny"),
        ("tools.policy.bash", None, "one of allow, deny"),
        ("provider.headers.X", "", "a string that is not empty"),
        ("provider.api_key_env", "sk-abc", "the name of an environment variable (A to Z, 0 to 9, _), not its value"),
        ("provider.api_key_env", "lower", "the name of an environment variable (A to Z, 0 to 9, _), not its value"),
        ("provider.api_key_env", "2KEYS", "the name of an environment variable (A to Z, 0 to 9, _), not its value"),
    ],
)
def test_does_not_fit(path: str, value: object, expected: str) -> None:
    key = find_key(path)
    assert key is not None
    with pytest.raises(WrongValueError) as caught:
        check_value(key, value)
    assert caught.value.expected == expected


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("daemon.max_runs", "12", 12),
        ("prompt.agents_md", "true", True),
        ("prompt.agents_md", "false", False),
        ("tools.active", "read,grep", ("read", "grep")),
        ("tools.active", "read, grep", ("read", "grep")),
        ("tools.active", "", ()),
        ("provider.model", "4", "4"),
        ("provider.name", "mock", "mock"),
        ("session_lock.timeout_ms", "0", 0),
    ],
)
def test_text_that_fits(path: str, text: str, value: object) -> None:
    assert parse_text(KEYS[path], text) == value


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("daemon.max_runs", ""),
        ("daemon.max_runs", "12s"),
        ("daemon.max_runs", " 12"),
        ("daemon.max_runs", "+12"),
        ("daemon.max_runs", "1_2"),
        ("daemon.max_runs", "1.0"),
        ("daemon.max_runs", "٣"),
        ("daemon.max_runs", "0"),
        ("daemon.max_runs", "9" * 5000),
        ("session_lock.timeout_ms", "null"),
        ("prompt.agents_md", "1"),
        ("prompt.agents_md", "yes"),
        ("prompt.agents_md", "True"),
        ("prompt.agents_md", ""),
        ("tools.active", "read,,grep"),
        ("provider.model", ""),
        ("provider.name", "Mock"),
    ],
)
def test_text_that_does_not_fit(path: str, text: str) -> None:
    with pytest.raises(WrongValueError):
        parse_text(KEYS[path], text)


@pytest.mark.parametrize(
    ("lock", "timing_ms"),
    [
        (SessionLockSettings(), (2_000, 50)),
        (SessionLockSettings(profile="swarm"), (10_000, 20)),
        (SessionLockSettings(profile="swarm", timeout_ms=0), (0, 20)),
        (SessionLockSettings(retry_ms=7), (2_000, 7)),
        (SessionLockSettings(timeout_ms=1, retry_ms=2), (1, 2)),
    ],
)
def test_timing_of_session_locks(lock: SessionLockSettings, timing_ms: tuple[int, int]) -> None:
    assert lock.timing_ms() == timing_ms


def test_what_is_sent_with_every_request_is_never_shown() -> None:
    headers = [key for key in KEYS.values() if key.path.endswith(".headers")]
    assert len(headers) > 10
    assert all(key.hidden and key.owner_only for key in headers)
    settings = build_settings({"provider.headers.x-a": "one", "providers.openai.headers.x-b": "two"})
    assert hidden_values(settings) == {"one", "two"}
