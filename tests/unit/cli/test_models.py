"""``nous models`` and ``nous auth check``: what they say, and that no key is ever in it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nous.cli.main import main
from nous.providers.presets import PRESETS

KEY = "sk-secret-0123456789"
LIST = b'{"data":[{"id":"gpt-5.6"},{"id":"brand-new","context_length":1234567}]}'


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A home without a configuration and an environment without keys."""
    for preset in PRESETS.values():
        if preset.key_variable:
            monkeypatch.delenv(preset.key_variable, raising=False)
    for name in ("NOUS_PROVIDER", "NOUS_MODEL", "NOUS_API_BASE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


class Models(BaseHTTPRequestHandler):
    """Lists models to whoever has the key."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        key = self.headers.get("authorization")
        self.asked.append((self.path, key))
        body = LIST if key == f"Bearer {KEY}" else b'{"error":{"type":"authentication_error"}}'
        self.send_response(200 if body is LIST else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def vendor() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    asked: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Models,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def config(tmp_path: Path, **provider: object) -> str:
    path = tmp_path / "given.yaml"
    path.write_text(json.dumps({"provider": provider}), encoding="utf-8")
    return str(path)


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capfd.readouterr()
    assert KEY not in out + err
    return code, out, err


def call_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = call(capfd, *arguments, "--json")
    assert err == ""
    found = json.loads(out)
    assert isinstance(found, dict)
    assert out.count("\n") == 1
    return code, found


def test_every_provider_and_what_is_known_of_its_models(capfd: pytest.CaptureFixture[str]) -> None:
    code, found = call_json(capfd, "models")
    assert (code, found["ok"]) == (0, True)
    assert [row["name"] for row in found["providers"]] == [*PRESETS]
    anthropic = next(row for row in found["providers"] if row["name"] == "anthropic")
    assert anthropic["key_variable"] == "ANTHROPIC_API_KEY"
    assert anthropic["models"][0].keys() >= {"id", "context_tokens", "max_output_tokens", "input_usd_per_mtok"}


def test_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capfd, "models", "--provider", "deepseek")
    assert (code, err) == (0, "")
    first, *rows = out.rstrip("\n").split("\n")
    assert first == "deepseek  DeepSeek  https://api.deepseek.com  (DEEPSEEK_API_KEY)"
    assert rows == [
        "  deepseek-v4-pro      1M  $1.32 in, $3.96 out per million tokens",
        "  deepseek-flash       1M  $0.3 in, $1.2 out per million tokens",
    ]


def test_one_provider(capfd: pytest.CaptureFixture[str]) -> None:
    code, found = call_json(capfd, "models", "--provider", "ollama")
    assert (code, [row["name"] for row in found["providers"]]) == (0, ["ollama"])
    assert found["providers"][0]["key_variable"] is None


@pytest.mark.parametrize("name", ["nobody", "mock", "replay", ""])
def test_a_provider_that_has_no_models(capfd: pytest.CaptureFixture[str], name: str) -> None:
    code, found = call_json(capfd, "models", "--provider", name)
    assert (code, found["ok"], found["error_code"]) == (6, False, "invalid_usage")


def test_a_users_file_counts(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("vllm:\n  mine: {context_tokens: 4096}\n", encoding="utf-8")
    given = config(tmp_path, models_file="models.yaml")
    _, found = call_json(capfd, "models", "--provider", "vllm", "--config", given)
    assert found["providers"][0]["models"] == [{"id": "mine", "context_tokens": 4096}]


def test_asking_the_provider(capfd: pytest.CaptureFixture[str], environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ.setenv("OPENAI_API_KEY", KEY)
    with vendor() as (url, asked):
        given = config(tmp_path, name="openai", api_base=url)
        code, found = call_json(capfd, "models", "--provider", "openai", "--online", "--config", given)
        assert call(capfd, "models", "--provider", "openai", "--online", "--config", given)[1].split("\n")[1:3] == [
            "  brand-new      1M",
            "  gpt-5.6        1M  $2 in, $10 out per million tokens",
        ]
    assert code == 0
    new, known = found["providers"][0]["models"]
    assert new == {"id": "brand-new", "context_tokens": 1_234_567}
    assert (known["id"], known["input_usd_per_mtok"]) == ("gpt-5.6", 2)
    assert asked == [("/models", f"Bearer {KEY}")] * 2


def test_an_address_that_was_set_for_one_provider_is_asked_for_no_other(
    capfd: pytest.CaptureFixture[str], environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a key would go where it does not belong."""
    environ.setenv("MY_KEY", KEY)
    with vendor() as (url, asked):
        given = config(tmp_path, name="vllm", api_base=url, api_key_env="MY_KEY")
        code, found = call_json(capfd, "models", "--provider", "kimi", "--online", "--config", given)
        assert (code, found["error_code"]) == (6, "invalid_config")
        assert "MOONSHOT_API_KEY" in found["error"]
    assert asked == []


def test_asking_everybody_goes_on_past_those_who_fail(
    capfd: pytest.CaptureFixture[str], environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without keys only the servers of this machine are tried, and whoever is configured."""
    with vendor() as (url, _):
        environ.setenv("MY_KEY", "wrong")
        given = config(tmp_path, name="vllm", api_base=url, api_key_env="MY_KEY", connect_timeout_ms=2000)
        code, found = call_json(capfd, "models", "--online", "--config", given)
    rows = {row["name"]: row for row in found["providers"]}
    assert (code, found["ok"]) == (0, True)
    assert rows["vllm"]["error"]["code"] == "provider_auth"
    for name, preset in PRESETS.items():
        if preset.key_variable:
            assert rows[name]["error"] == {"code": "invalid_config", "cause": f"{preset.key_variable}: not set"}


# -- auth


def test_which_keys_are_set(capfd: pytest.CaptureFixture[str], environ: pytest.MonkeyPatch) -> None:
    environ.setenv("ANTHROPIC_API_KEY", KEY)
    environ.setenv("GEMINI_API_KEY", f"{KEY}\n")
    environ.setenv("DEEPSEEK_API_KEY", "")
    code, found = call_json(capfd, "auth", "check")
    assert (code, found["ok"], found["provider"]) == (0, True, None)
    states = {row["provider"]: row["state"] for row in found["keys"]}
    assert states.keys() == PRESETS.keys()
    assert {name for name, state in states.items() if state == "set"} == {"anthropic"}
    assert {name for name, state in states.items() if state == "unusable"} == {"gemini"}
    assert {name for name, state in states.items() if state == "none"} == {"ollama", "vllm", "llamacpp", "lmstudio"}


def test_for_people_with_the_configured_provider_marked(
    capfd: pytest.CaptureFixture[str], environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ.setenv("MY_KEY", KEY)
    code, out, err = call(capfd, "auth", "check", "--config", config(tmp_path, name="vllm", api_key_env="MY_KEY"))
    assert (code, err) == (0, "")
    lines = out.rstrip("\n").split("\n")
    assert "* vllm              MY_KEY                set" in lines
    assert "  openai            OPENAI_API_KEY        not set" in lines
    assert "  ollama            -                     needs no key" in lines


@pytest.mark.parametrize("arguments", [("auth",), ("auth", "login"), ("models", "--nonsense")])
def test_wrong_command_lines(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, found = call_json(capfd, *arguments)
    assert (code, found["error_code"]) == (6, "invalid_usage")


@pytest.mark.parametrize("arguments", [("models", "--help"), ("auth", "--help")])
def test_help(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert arguments[0] in capfd.readouterr().out
