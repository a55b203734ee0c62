"""``extension.yaml``: what an extension is and what it may do, known before anything of it runs.

Strict: whatever is unknown, of the wrong type or out of bounds is ``invalid_config`` with file, line and path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
from msgspec import Meta

from nous.config.settings import OnFailure, Priority
from nous.config.yaml_file import parse_yaml, read_source
from nous.config.yaml_nodes import Node, SourceFile, refuse, show_key
from nous.errors import NousError
from nous.extensions.policy import Policy
from nous.ports.extensions import HookName

MANIFEST_NAME: Final = "extension.yaml"

PYTHON: Final = "{python}"
"""As a command's first word: the interpreter nous runs with, which has the kit ``nous.extension``."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z")]
Word = Annotated[str, Meta(min_length=1, max_length=4096)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")]


class Manifest(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A manifest.

    ``command`` is started in the extension's directory; ``{python}`` as its first word is the interpreter that nous
    itself runs with.  ``hooks`` are all the hooks it may ever ask for; they are called by ``priority`` (lowest first),
    then by name.  ``env`` names variables that it gets besides the usual few.
    """

    name: Name
    command: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=64)]
    description: Annotated[str, Meta(max_length=1024)] = ""
    priority: Priority = 100
    hooks: tuple[HookName, ...] = ()
    on_failure: dict[HookName, OnFailure] = msgspec.field(default_factory=dict)
    env: tuple[VariableName, ...] = ()


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
_PATH: Final = re.compile(r" - at `\$([^`]*)`$")


def read_manifest(directory: Path) -> Manifest:
    """Read ``directory/extension.yaml``.

    Raises:
        NousError: ``invalid_config`` (its cause ``FILE:LINE: path: what``), ``invalid_usage`` if there is none,
            ``io_failure`` if it cannot be read.
    """
    path = directory / MANIFEST_NAME
    try:
        source = read_source(path)
    except FileNotFoundError:
        raise NousError("invalid_usage", f"{path}: no such file", hint="See docs/extensions.md.") from None
    return parse_manifest(source)


def parse_manifest(source: SourceFile) -> Manifest:
    """Return the manifest that stands in a file's bytes.

    Raises:
        NousError: ``invalid_config``.
    """
    return _Reader(source.name).read(parse_yaml(source))


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file

    def read(self, root: Node) -> Manifest:
        if not isinstance(root.value, dict):
            refuse(self._file, root.line, "", "expected a mapping")
        values = {key: self._value(key, node) for key, node in root.value.items()}
        for field in _FIELDS.values():
            if field.required and field.name not in values:
                refuse(self._file, root.line, field.name, "is missing")
        manifest = Manifest(**values)
        self._check(root.value, manifest)
        return manifest

    def _value(self, key: str, node: Node) -> Any:
        field = _FIELDS.get(key)
        if field is None:
            refuse(self._file, node.line, show_key(key), f"unknown key; known are {', '.join(_FIELDS)}")
        try:
            return msgspec.convert(node.plain(), field.type)
        except msgspec.ValidationError as error:
            self._refuse(key, node, str(error))

    def _refuse(self, key: str, node: Node, text: str) -> NoReturn:
        """Say what is wrong at the line on which it stands."""
        found = _PATH.search(text)
        below = found[1] if found else ""
        refuse(self._file, _line_at(node, below), key + show_path(below), _PATH.sub("", text))

    def _check(self, nodes: dict[str, Node], manifest: Manifest) -> None:
        """Refuse what each value allows and their combination does not."""
        if len(set(manifest.hooks)) < len(manifest.hooks):
            refuse(self._file, nodes["hooks"].line, "hooks", "a hook is named twice")
        for hook in manifest.on_failure:
            if hook not in manifest.hooks:
                node = nodes["on_failure"]
                line = node.value[hook].line if isinstance(node.value, dict) else node.line
                refuse(self._file, line, f"on_failure.{hook}", "this hook is not among `hooks`")
        if any("\0" in word for word in manifest.command):
            refuse(self._file, nodes["command"].line, "command", "a NUL character")


def show_path(below: str) -> str:
    """Return the path of a part as it may stand in a message: msgspec writes ``[...]`` for a mapping's entries."""
    return "" if below == "[...]" else below


def _line_at(node: Node, below: str) -> int:
    """Return the line of the item ``[2]`` of a list, else of the whole value."""
    index = below.removeprefix("[").removesuffix("]")
    items = node.value if isinstance(node.value, list) else []
    return items[int(index)].line if items and index.isdecimal() else node.line
