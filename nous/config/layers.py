"""The layers of the configuration and how they become one: later layers win, value by value.

    defaults < user file < project file (only a trusted one) < --config FILE < environment < flags

A mapping is merged with the same mapping of the layer below it, a list is replaced whole.  Each layer is checked by
itself, so an error names the place that holds it: ``FILE:LINE``, the environment's variable, or the flag.

Source of the rules: docs/configuration.md, "Layers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeAlias

from nous.config.checks import check_settings
from nous.config.keys import (
    KEYS,
    SECTIONS,
    Key,
    WrongValueError,
    build_settings,
    check_value,
    find_key,
    flatten,
    parse_text,
    show_value,
    suggest_key,
)
from nous.config.settings import Settings
from nous.config.yaml_file import parse_yaml, read_source
from nous.config.yaml_nodes import Node, SourceFile, refuse, show_key
from nous.errors import NousError
from nous.system.state_dir import home_dir, user_dir

ENV_PREFIX: Final = "NOUS_"

PROCESS_VARIABLES: Final[Mapping[str, str]] = {
    "NOUS_ALLOW_BOOTSTRAP": "1 permits `nous serve` to make a missing state directory, as `--bootstrap` does.",
    "NOUS_CORRELATION_ID": "Found again in logs, traces, errors and children, as `--correlation-id`.",
}
"""Known variables that are no settings: they say something about one call, not about how nous is to behave."""

DEFAULT_SOURCE: Final = "default"


class Given(NamedTuple):
    """A value and where it was given: ``FILE:LINE``, the variable's name, or the flag's."""

    value: object
    source: str


Layer: TypeAlias = dict[str, Given]
"""Checked values by dotted path."""


class Resolved(NamedTuple):
    """The configuration and, for each dotted path, where its value comes from (``default`` if nobody gave it)."""

    settings: Settings
    sources: dict[str, str]


def resolve(
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    trusted_project: SourceFile | None = None,
    last_trusted: SourceFile | None = None,
) -> Resolved:
    """Read all layers and return the configuration.

    ``flags`` are values of the settings' own types by dotted path, only those that were given.  ``trusted_project``
    is the project file as it was read when its trust was checked: it is not read a second time here.  ``last_trusted``
    is a project file as it was before it changed: of it only the restrictions count.

    Raises:
        NousError: ``invalid_config`` or, for a flag, ``invalid_usage``; the cause names place and key.
    """
    merged: Layer = {}
    merged.update(_read_user_file(environ))
    if trusted_project is not None:
        merged.update(read_file_layer(trusted_project, environ, is_project=True))
    if last_trusted is not None:
        merged.update(_kept_of(read_file_layer(last_trusted, environ, is_project=True), merged))
    if config_file is not None:
        merged.update(_read_named_file(config_file, environ))
    merged.update(read_environment(environ))
    merged.update(_read_flags(flags or {}, environ))
    _refuse_unknown_variables(environ, merged)
    settings = build_settings({path: given.value for path, given in merged.items()})
    sources = {path: merged[path].source if path in merged else DEFAULT_SOURCE for path in flatten(settings)}
    check_settings(settings, sources)
    return Resolved(settings, sources)


def _kept_of(trusted: Layer, below: Layer) -> Layer:
    """Return what stays in force of a project's file that has changed; see :mod:`nous.config.restrictions`."""
    from nous.config.restrictions import restrictions  # most starts meet no such file

    kept = restrictions(
        {path: at.value for path, at in below.items()}, {path: at.value for path, at in trusted.items()}
    )
    return {path: Given(value, trusted[path].source) for path, value in kept.items()}


def user_config_file(environ: Mapping[str, str]) -> Path:
    """Return ``$XDG_CONFIG_HOME/nous/config.yaml``, or ``~/.config/nous/config.yaml``."""
    return user_dir(environ, "XDG_CONFIG_HOME", ".config") / "nous" / "config.yaml"


def allows_bootstrap(environ: Mapping[str, str]) -> bool:
    """Whether ``NOUS_ALLOW_BOOTSTRAP=1`` permits to make a state directory.

    Raises:
        NousError: ``invalid_config`` for anything but 1, 0 or not set: a permission is never guessed.
    """
    text = environ.get("NOUS_ALLOW_BOOTSTRAP", "0")
    if text not in ("0", "1"):
        raise NousError("invalid_config", "NOUS_ALLOW_BOOTSTRAP: expected 1 or 0")
    return text == "1"


def read_file_layer(source: SourceFile, environ: Mapping[str, str], *, is_project: bool = False) -> Layer:
    """Return what a configuration file sets; relative paths in it start at its own directory, ``~/`` at the home.

    Raises:
        NousError: ``invalid_config``, its cause ``FILE:LINE: path.of.key: what``.
    """
    root = parse_yaml(source)
    reader = _FileReader(source.name, environ, is_project)
    return {} if root.value is None else dict(reader.read_section(root, ""))


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Return what the closed list of variables sets.  A variable that is set but empty is an error."""
    layer: Layer = {}
    for key in KEYS.values():
        if key.env is None or key.env not in environ:
            continue
        try:
            value = parse_text(key, environ[key.env])
        except WrongValueError as error:
            given = show_value(key, environ[key.env]) or "this text"
            raise NousError("invalid_config", f"{key.env}: expected {error.expected}, not {given}") from None
        layer[key.path] = Given(_locate(key, value, Path.cwd(), environ), key.env)
    return layer


class _FileReader:
    """Walks one file's tree along the keys."""

    def __init__(self, file: str, environ: Mapping[str, str], is_project: bool) -> None:
        self._file = file
        self._environ = environ
        self._is_project = is_project

    def read_section(self, node: Node, path: str) -> Iterator[tuple[str, Given]]:
        if not isinstance(node.value, dict):
            self._refuse(node, path, f"expected a mapping, not {_kind(node)}")
        for name, child in node.value.items():
            below = f"{path}.{name}" if path else name
            shown = f"{path}.{show_key(name)}" if path else show_key(name)
            if "." in name:
                self._refuse(child, shown, "a key with a dot; write it as nested mappings")
            if below in SECTIONS or (below in KEYS and KEYS[below].is_open):
                yield from self.read_section(child, below)
            else:
                yield below, self._read_value(child, below, shown)

    def _read_value(self, node: Node, path: str, shown: str) -> Given:
        key = find_key(path)
        if key is None:
            self._refuse(node, shown, f"unknown key{suggest_key(path)}")
        if self._is_project and key.owner_only:
            self._refuse(node, shown, "a project's file may not set this")
        try:
            value = check_value(key, node.plain())
        except WrongValueError as error:
            given = show_value(key, node.value) or _kind(node)
            self._refuse(node, shown, f"expected {error.expected}, not {given}")
        base = Path(self._file).absolute().parent
        return Given(_locate(key, value, base, self._environ), f"{self._file}:{node.line}")

    def _refuse(self, node: Node, path: str, what: str) -> NoReturn:
        refuse(self._file, node.line, path, what)


def _read_user_file(environ: Mapping[str, str]) -> Layer:
    try:
        source = read_source(user_config_file(environ))
    except FileNotFoundError:
        return {}
    return read_file_layer(source, environ)


def _read_named_file(path: Path, environ: Mapping[str, str]) -> Layer:
    try:
        source = read_source(path)
    except FileNotFoundError:
        raise NousError("invalid_config", f"{path}: no such file") from None
    return read_file_layer(source, environ)


def _read_flags(flags: Mapping[str, object], environ: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for path, value in flags.items():
        key = find_key(path)
        if key is None:
            raise NousError("invalid_usage", f"{show_key(path)}: unknown key{suggest_key(path)}")
        name = key.flag or path
        try:
            checked = check_value(key, value)
        except WrongValueError as error:
            raise NousError("invalid_usage", f"{name}: expected {error.expected}") from None
        layer[path] = Given(_locate(key, checked, Path.cwd(), environ), name)
    return layer


def _locate(key: Key, value: object, base: Path, environ: Mapping[str, str]) -> object:
    """Make the value of a path setting absolute: ``~/`` is the home directory, anything relative starts at ``base``."""
    if not key.is_path or not isinstance(value, str):
        return value
    return str(home_dir(environ) / value[2:] if value.startswith("~/") else base / value)


def _refuse_unknown_variables(environ: Mapping[str, str], merged: Layer) -> None:
    """Refuse a ``NOUS_*`` nobody reads: whoever set it believes that it does something."""
    known = PROCESS_VARIABLES.keys() | {key.env for key in KEYS.values() if key.env}
    named = {given.value for path, given in merged.items() if path.endswith("_env")}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known and name not in named:
            raise NousError(
                "invalid_config",
                f"{show_key(name)}: unknown variable",
                hint=f"Unset it. Known are: {', '.join(sorted(known))}.",
            )


def _kind(node: Node) -> str:
    if node.value is None:
        return "null"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    names: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names[type(node.value)]
