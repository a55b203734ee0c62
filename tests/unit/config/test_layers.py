"""The layers: who wins, where a value comes from, and what each layer refuses in its own words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.config.keys import KEYS, Key, flatten
from nous.config.layers import PROCESS_VARIABLES, Resolved, allows_bootstrap, resolve, user_config_file
from nous.config.settings import ProviderName, Settings
from nous.config.yaml_nodes import SourceFile
from nous.errors import NousError

PROVIDERS = ", ".join(get_args(ProviderName))


class Home:
    """A user's home on disk, with what would be on their command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user_file = root / ".config" / "nous" / "config.yaml"
        self.config_file = root / "given.yaml"
        self.project_file = root / "project" / ".nous" / "config.yaml"

    def write_user(self, text: str) -> None:
        self.user_file.parent.mkdir(parents=True, exist_ok=True)
        self.user_file.write_text(text, encoding="utf-8")

    def resolve(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
        config: str | None = None,
        project: str | None = None,
    ) -> Resolved:
        if config is not None:
            self.config_file.write_text(config, encoding="utf-8")
        return resolve(
            environ={"HOME": str(self.root), **(environ or {})},
            flags=flags,
            config_file=None if config is None else self.config_file,
            trusted_project=None if project is None else SourceFile(str(self.project_file), project.encode("utf-8")),
        )

    def refusal(self, **layers: object) -> NousError:
        with pytest.raises(NousError) as caught:
            self.resolve(**layers)  # type: ignore[arg-type]
        assert caught.value.exit_code == 6
        return caught.value


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# Who wins


def test_nothing_given(home: Home) -> None:
    resolved = home.resolve()
    assert resolved.settings == Settings()
    assert resolved.sources == dict.fromkeys(flatten(Settings()), "default")


LAYERS = ["user", "project", "config", "environment", "flags"]


@pytest.mark.parametrize("given_in", [some for n in range(6) for some in combinations(LAYERS, n)], ids=",".join)
def test_the_last_layer_that_gives_a_value_wins(home: Home, given_in: tuple[str, ...]) -> None:
    if "user" in given_in:
        home.write_user("# mine\nprovider:\n  model: user\n")
    resolved = home.resolve(
        project="provider: {model: project}" if "project" in given_in else None,
        config="\n\nprovider: {model: config}" if "config" in given_in else None,
        environ={"NOUS_MODEL": "environment"} if "environment" in given_in else None,
        flags={"provider.model": "flags"} if "flags" in given_in else None,
    )
    winner = next((layer for layer in reversed(LAYERS) if layer in given_in), None)
    sources = {
        "user": f"{home.user_file}:3",
        "project": f"{home.project_file}:1",
        "config": f"{home.config_file}:3",
        "environment": "NOUS_MODEL",
        "flags": "--model",
        None: "default",
    }
    assert resolved.settings.provider.model == winner
    assert resolved.sources["provider.model"] == sources[winner]


def test_layers_are_merged_value_by_value(home: Home) -> None:
    home.write_user("provider: {name: openai, model: small}\ntools:\n  policy: {bash: deny, write: deny}\n")
    resolved = home.resolve(
        config="tools:\n  active: [read]\n  policy:\n    bash: allow\n",
        environ={"NOUS_LOG_LEVEL": "debug"},
        flags={"tools.policy.edit": "deny", "daemon.drain_timeout_ms": 5, "tools.active": ["read", "grep"]},
    )
    settings, sources = resolved
    assert (settings.provider.name, settings.provider.model) == ("openai", "small")
    assert settings.tools.policy == {"bash": "allow", "write": "deny", "edit": "deny"}
    assert settings.tools.active == ("read", "grep"), "lists are replaced, not joined"
    assert {path: source for path, source in sources.items() if source != "default"} == {
        "provider.name": f"{home.user_file}:1",
        "provider.model": f"{home.user_file}:1",
        "tools.active": "--tools",
        "tools.policy.bash": f"{home.config_file}:4",
        "tools.policy.write": f"{home.user_file}:3",
        "tools.policy.edit": "tools.policy.edit",
        "daemon.log_level": "NOUS_LOG_LEVEL",
        "daemon.drain_timeout_ms": "--drain-timeout",
    }


def test_null_takes_a_value_back(home: Home) -> None:
    home.write_user("tools: {active: [read]}")
    resolved = home.resolve(config="tools: {active: null}")
    assert resolved.settings.tools.active is None
    assert resolved.sources["tools.active"] == f"{home.config_file}:1"


SCALARS = st.fixed_dictionaries(
    {},
    optional={
        "daemon.max_runs": st.integers(1, 9),
        "daemon.on_eof": st.sampled_from(["finish", "abort"]),
        "prompt.agents_md": st.booleans(),
        "provider.model": st.sampled_from(["a", "b"]),
        "tools.policy.bash": st.sampled_from(["allow", "deny"]),
        "trace.fsync": st.sampled_from(["message", "run", "off"]),
    },
)


@given(project=SCALARS, flags=SCALARS)
def test_values_and_sources_agree_for_any_layers(project: dict[str, object], flags: dict[str, object]) -> None:
    nested: dict[str, object] = {}
    for path, value in project.items():
        *sections, name = path.split(".")
        mapping = nested
        for section in sections:
            mapping = mapping.setdefault(section, {})  # type: ignore[assignment]
        mapping[name] = value
    source = SourceFile("/p/config.yaml", json.dumps(nested).encode())
    settings, sources = resolve(environ={"HOME": "/nowhere"}, flags=flags, trusted_project=source)
    values = flatten(settings)
    assert values == flatten(Settings()) | project | flags
    assert set(values) == set(sources)
    for path, where in sources.items():
        layer = "flags" if path in flags else "/p/config.yaml:1" if path in project else "default"
        assert (where == layer) or (layer == "flags" and not where.startswith(("/p", "default")))


# Where files are


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.config/nous/config.yaml"),
        ({"HOME": "/home/ada", "XDG_CONFIG_HOME": "/etc/ada"}, "/etc/ada/nous/config.yaml"),
        ({"HOME": "/home/ada", "XDG_CONFIG_HOME": "etc"}, "/home/ada/.config/nous/config.yaml"),
    ],
)
def test_the_user_file(environ: dict[str, str], expected: str) -> None:
    assert user_config_file(environ) == Path(expected)


def test_the_user_file_may_be_empty(home: Home) -> None:
    home.write_user("# nothing yet\n")
    assert home.resolve().settings == Settings()


def test_a_named_file_must_exist(home: Home) -> None:
    with pytest.raises(NousError) as caught:
        resolve(environ={"HOME": "/nowhere"}, config_file=home.root / "absent.yaml")
    assert caught.value.code == "invalid_config"
    assert caught.value.cause == f"{home.root}/absent.yaml: no such file"


def test_relative_paths_start_where_they_were_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_user("prompt: {system_file: prompts/mine.md}\nprovider: {script: ~/scripts/a.yaml}\n")
    monkeypatch.chdir(home.root)
    settings = home.resolve(
        environ={"NOUS_STATE_DIR": "state"}, flags={"provider.script": "b.yaml"}, config="trace: {fsync: run}"
    ).settings
    assert settings.prompt.system_file == str(home.user_file.parent / "prompts/mine.md")
    assert settings.provider.script == str(home.root / "b.yaml")
    assert settings.state_dir == str(home.root / "state")
    assert home.resolve().settings.provider.script == str(home.root / "scripts/a.yaml")


def test_a_relative_config_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / "sub").mkdir()
    (home.root / "sub" / "c.yaml").write_text("state_dir: st\n", encoding="utf-8")
    monkeypatch.chdir(home.root)
    resolved = resolve(environ={"HOME": str(home.root)}, config_file=Path("sub/c.yaml"))
    assert resolved.settings.state_dir == str(home.root / "sub" / "st")
    assert resolved.sources["state_dir"] == "sub/c.yaml:1"


# What files are refused for, with file, line and path of the key


REFUSED_FILES = [
    ("provder:\n  name: mock\n", 1, "provder: unknown key; did you mean provider?"),
    ("provider:\n  nam: mock\n", 2, "provider.nam: unknown key; did you mean provider.name?"),
    ("model: x\n", 1, "model: unknown key; did you mean provider.model?"),
    ("modle: x\n", 1, "modle: unknown key; did you mean provider.model?"),
    (
        "tools:\n  policy:\n    bash: sk-a-secret-that-is-long\n",
        3,
        "tools.policy.bash: expected one of allow, deny, not this text",
    ),
    ("\n\nquux: 1\n", 3, "quux: unknown key"),
    ("provider:\n  name: nobody\n", 2, f'provider.name: expected one of {PROVIDERS}, not "nobody"'),
    ("daemon:\n  max_runs: '3'\n", 2, 'daemon.max_runs: expected an integer from 1 to 1000000, not "3"'),
    ("daemon:\n  max_runs: 3.0\n", 2, "daemon.max_runs: expected an integer from 1 to 1000000, not a number"),
    ("daemon:\n  max_runs: true\n", 2, "daemon.max_runs: expected an integer from 1 to 1000000, not true"),
    ("daemon:\n  max_runs:\n", 2, "daemon.max_runs: expected an integer from 1 to 1000000, not null"),
    ("daemon:\n  max_runs: [1]\n", 2, "daemon.max_runs: expected an integer from 1 to 1000000, not a list"),
    ("daemon:\n  drain_timeout_ms: 30s\n", 2, "daemon.drain_timeout_ms: expected an integer from 0 to"),
    ("prompt:\n  agents_md: yes\n", 2, 'prompt.agents_md: expected true or false, not "yes"'),
    ("provider:\n  model: 4\n", 2, "provider.model: expected a string that is not empty, not a number"),
    ("provider:\n  model: {a: b}\n", 2, "provider.model: expected a string that is not empty, not a mapping"),
    ("tools:\n  active: read\n", 2, "tools.active: expected a list of strings, not text"),
    ("tools:\n  policy:\n    bash: ask\n", 3, 'tools.policy.bash: expected one of allow, deny, not "ask"'),
    ("tools:\n  policy: deny\n", 2, "tools.policy: expected a mapping, not text"),
    ("tools:\n  policy:\n    a b: deny\n", 3, "tools.policy.a b: unknown key"),
    ("tools:\n  policy:\n    '': deny\n", 3, "tools.policy.'': unknown key"),
    ("provider:\n", 1, "provider: expected a mapping, not null"),
    ("provider: mock\n", 1, "provider: expected a mapping, not text"),
    ("provider: [mock]\n", 1, "provider: expected a mapping, not a list"),
    ("- provider\n", 1, "expected a mapping, not a list"),
    ("\n# x\n- provider\n", 3, "expected a mapping, not a list"),
    ("mock\n", 1, "expected a mapping, not text"),
    ("provider.name: mock\n", 1, "provider.name: a key with a dot; write it as nested mappings"),
    ("x: 1\n'tools.policy': {}\n", 1, "x: unknown key"),
    ("tools:\n  policy.bash: deny\n", 2, "tools.policy.bash: a key with a dot; write it as nested mappings"),
    ("tools:\n  policy:\n    a.b: deny\n", 3, "tools.policy.a.b: a key with a dot; write it as nested mappings"),
    ("daemon:\n  max_runs: 1\n  max_runs: 1\n", 3, "daemon.max_runs: duplicate key (first on line 2)"),
    ("daemon: {}\ndaemon: {}\n", 2, "daemon: duplicate key (first on line 1)"),
    ("daemon: &d {max_runs: 1}\n", 1, "daemon: anchors and aliases are not allowed"),
    ("daemon:\n  <<: {max_runs: 1}\n", 2, "daemon: merge keys are not allowed"),
    ("daemon:\n  max_runs: .nan\n", 2, "daemon.max_runs: not a finite number"),
    ("daemon:\n  max_runs: .inf\n", 2, "daemon.max_runs: not a finite number"),
    ("daemon: {max_runs: 1\n", 2, "not YAML: "),
    ("provider:\n  api_key: sk-1\n", 2, "provider.api_key: unknown key; did you mean provider.api_key_env?"),
    ("provider:\n  api_key_env: sk-abcdef\n", 2, "provider.api_key_env: expected the name of an environment variable"),
    (
        "provider:\n  headers:\n    X: ''\n",
        3,
        "provider.headers.X: expected a string that is not empty, not an empty text",
    ),
    ("provider:\n  headers:\n    authorization: Bearer x\n", 3, "provider.headers.authorization: secrets never stand"),
    ("provider:\n  headers:\n    X-Api-Key: abc\n", 3, "provider.headers.X-Api-Key: secrets never stand in a file"),
    ("prompt:\n  system: a\n  system_file: b\n", 3, "prompt.system_file: prompt.system is set too"),
]


@pytest.mark.parametrize(("text", "line", "what"), REFUSED_FILES)
@pytest.mark.parametrize("layer", ["user", "config"])
def test_refused_files(home: Home, layer: str, text: str, line: int, what: str) -> None:
    file = home.user_file if layer == "user" else home.config_file
    if layer == "user":
        home.write_user(text)
    error = home.refusal(config=text if layer == "config" else None)
    assert error.code == "invalid_config"
    assert str(error.cause).startswith(f"{file}:{line}: {what}")


def test_no_refusal_repeats_a_value(home: Home) -> None:
    for text in (
        "provider: {api_key_env: sk-verysecret}",
        "provider: {api_key: sk-verysecret}",
        "provider: {headers: {authorization: Bearer sk-verysecret}}",
        "provider: {name: sk-verysecret}",
        "provider: sk-verysecret",
        "daemon: {max_runs: sk-verysecret}",
    ):
        assert "verysecret" not in str(home.refusal(config=text).cause)


@pytest.mark.parametrize(
    "text",
    [
        "state_dir: /tmp/x",
        "provider: {api_base: 'https://elsewhere.example'}",
        "provider: {headers: {X-A: b}}",
        "provider: {api_key_env: MY_KEY}",
        "provider: {allow_insecure: true}",
        "tools: {allow_outside_workdir: true}",
        "provider: {api_base: null}",
    ],
)
def test_what_a_project_may_not_set(home: Home, text: str) -> None:
    error = home.refusal(project=text)
    assert str(error.cause).startswith(f"{home.project_file}:1: ")
    assert str(error.cause).endswith("a project's file may not set this")
    assert home.resolve(config=text).settings is not None, "the owner may"


# The environment's closed list


@pytest.mark.parametrize("key", [key for key in KEYS.values() if key.env], ids=lambda key: key.env)
def test_an_empty_variable_is_an_error(home: Home, key: Key) -> None:
    error = home.refusal(environ={str(key.env): ""})
    assert str(error.cause).startswith(f"{key.env}: expected ")


def test_every_variable_sets_its_key(home: Home) -> None:
    texts = {"provider.name": "mock", "daemon.log_level": "error", "session_lock.profile": "swarm"}
    environ = {key.env: texts.get(path, "7") for path, key in KEYS.items() if key.env}
    resolved = home.resolve(environ=environ)
    assert {path for path, source in resolved.sources.items() if source == KEYS[path].env} == {
        path for path, key in KEYS.items() if key.env
    }


@pytest.mark.parametrize("name", ["NOUS_PROVDER", "NOUS_", "NOUS_TRACE_FSYNC", "NOUS_SESSION_LOCK", "NOUS_provider"])
def test_an_unknown_variable_is_an_error_naming_it(home: Home, name: str) -> None:
    error = home.refusal(environ={name: "sk-verysecret"})
    assert (error.code, error.cause) == ("invalid_config", f"{name}: unknown variable")
    assert "NOUS_PROVIDER" in str(error.hint)
    assert "verysecret" not in f"{error}{error.hint}"


@pytest.mark.parametrize("name", ["nous_provider", "NOUSE", "XNOUS_A", "OPENAI_API_KEY", "NOUS"])
def test_other_peoples_variables_do_not_matter(home: Home, name: str) -> None:
    assert home.resolve(environ={name: "x"}).settings == Settings()


@pytest.mark.parametrize("name", sorted(PROCESS_VARIABLES))
def test_variables_about_one_call_are_known(home: Home, name: str) -> None:
    assert home.resolve(environ={name: "1"}).settings == Settings()


def test_a_variable_that_holds_a_named_secret_is_known(home: Home) -> None:
    environ = {"NOUS_MY_KEY": "sk-1"}
    assert home.refusal(environ=environ).cause == "NOUS_MY_KEY: unknown variable"
    settings = home.resolve(environ=environ, config="provider: {api_key_env: NOUS_MY_KEY}").settings
    assert settings.provider.api_key_env == "NOUS_MY_KEY"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("NOUS_PROVIDER", "nobody", f"one of {PROVIDERS}"),
        ("NOUS_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("NOUS_SESSION_LOCK_TIMEOUT_MS", "2s", "an integer from 0 to 604800000"),
        ("NOUS_SESSION_LOCK_RETRY_MS", "0", "an integer from 1 to 604800000"),
    ],
)
def test_a_wrong_variable(home: Home, name: str, text: str, expected: str) -> None:
    error = home.refusal(environ={name: text})
    assert (error.code, error.cause) == ("invalid_config", f'{name}: expected {expected}, not "{text}"')


@pytest.mark.parametrize(("text", "allowed"), [("1", True), ("0", False), (None, False)])
def test_bootstrap_permission(text: str | None, allowed: bool) -> None:
    assert allows_bootstrap({} if text is None else {"NOUS_ALLOW_BOOTSTRAP": text}) is allowed


@pytest.mark.parametrize("text", ["", "true", "yes", "01", " 1", "2"])
def test_a_permission_is_never_guessed(text: str) -> None:
    with pytest.raises(NousError) as caught:
        allows_bootstrap({"NOUS_ALLOW_BOOTSTRAP": text})
    assert (caught.value.exit_code, caught.value.cause) == (6, "NOUS_ALLOW_BOOTSTRAP: expected 1 or 0")


# Flags


@pytest.mark.parametrize(
    ("path", "value", "cause"),
    [
        ("provider.name", "nobody", f"--provider: expected one of {PROVIDERS}"),
        ("daemon.max_line_bytes", 3, "--max-line-bytes: expected an integer from 64 to 66060288"),
        ("daemon.max_line_bytes", "1000", "--max-line-bytes: expected an integer from 64 to 66060288"),
        ("engine.max_model_calls", 0, "engine.max_model_calls: expected an integer from 1 to 1000000"),
        ("daemon.loud", 1, "daemon.loud: unknown key"),
        ("tools.policy", {"bash": "deny"}, "tools.policy: unknown key"),
        ("daemon", {}, "daemon: unknown key"),
    ],
)
def test_a_wrong_flag(home: Home, path: str, value: object, cause: str) -> None:
    error = home.refusal(flags={path: value})
    assert error.code == "invalid_usage"
    assert str(error.cause).startswith(cause)


# What a start without a file pays for


def test_a_start_without_files_imports_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_after({"HOME": str(tmp_path)})
    assert loaded & {"yaml", "structlog", "httpx2", "anyio", "asyncio", "logging", "difflib", "dataclasses"} == set()
    assert "nous.config.yaml_parser" not in loaded


def test_a_start_with_a_file_imports_yaml(tmp_path: Path) -> None:
    """The test above would see it."""
    home = Home(tmp_path)
    home.write_user("provider: {name: mock}\n")
    assert {"yaml", "nous.config.yaml_parser"} <= modules_after({"HOME": str(tmp_path)})


def modules_after(environ: dict[str, str]) -> set[str]:
    script = (
        "import sys, os\nfrom nous.config.layers import resolve\nfrom nous.config.provider import require_provider\n"
        "resolve(environ=os.environ)\nprint(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=True, timeout=60)
    return set(done.stdout.decode("ascii").split())
