"""The strict YAML reader: what it takes, what it refuses and where it says so, what it never pays for."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.config.yaml_file import MAX_FILE_BYTES, parse_yaml, read_source
from nous.config.yaml_nodes import SourceFile, show_key
from nous.config.yaml_parser import MAX_DEPTH
from nous.errors import NousError

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def parse(text: str | bytes) -> object:
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return parse_yaml(SourceFile("c.yaml", data)).plain()


def cause_of(text: str | bytes) -> str:
    with pytest.raises(NousError) as caught:
        parse(text)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_config", 6)
    return str(caught.value.cause)


# What it takes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment\n", None),
        ("---\n", None),
        ("---\n...\n", None),
        ("a: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("\ufeffa: 1", {"a": 1}),
        ("%YAML 1.1\n---\na: 1", {"a": 1}),
        ("{a: {b: [1, two, null]}}", {"a": {"b": [1, "two", None]}}),
        ("- 1\n- x: 2\n", [1, {"x": 2}]),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
        ("a: >-\n  one\n  two\n", {"a": "one two"}),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: ''", {"a": ""}),
        ("1: x", {"1": "x"}),
        ("true: x", {"true": "x"}),
        ("'a.b': x", {"a.b": "x"}),
        ('a: "\\u2028\\N"', {"a": "\u2028\x85"}),
        ("a: été", {"a": "été"}),
    ],
)
def test_taken(text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("null", None),
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-7", -7),
        ("30000", 30000),
        ("1.5", 1.5),
        ("-0.25", -0.25),
        ("1e3", 1000.0),
        ("'30'", "30"),
        ('"true"', "true"),
        # Words that YAML 1.1 or 1.2 turns into something else, one way or the other.
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("True", "True"),
        ("NULL", "NULL"),
        ("012", "012"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("+1", "+1"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.", "1."),
        (".5", ".5"),
        ("2026-11-21", "2026-11-21"),
        ("=", "="),
        ("٣", "٣"),
    ],
)
def test_words_mean_what_they_mean_in_json(word: str, value: object) -> None:
    parsed = parse(f"a: {word}")
    assert parsed == {"a": value}
    assert isinstance(parsed, dict)
    assert type(parsed["a"]) is type(value)


def test_lines_are_those_of_the_keys() -> None:
    root = parse_yaml(SourceFile("c.yaml", b"\n# comment\na:\n  b:\n\n    - x\n    - y\n"))
    assert isinstance(root.value, dict)
    inner = root.value["a"]
    assert inner.line == 3
    assert isinstance(inner.value, dict)
    items = inner.value["b"]
    assert items.line == 4
    assert isinstance(items.value, list)
    assert [item.line for item in items.value] == [6, 7]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_json_is_read_as_json(value: object) -> None:
    """JSON is YAML: what is written as JSON comes out as it went in."""
    assert parse(msgspec.json.encode(value)) == value


# What it refuses


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        # duplicate keys
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: a: duplicate key (first on line 1)"),
        ("x:\n  a: 1\n  'a': 1\n", "c.yaml:3: x.a: duplicate key (first on line 2)"),
        ("[{a: 1}, {b: 1,\n b: 1}]", "c.yaml:2: [1].b: duplicate key (first on line 1)"),
        # indirection
        ("a: &x 1\n", "c.yaml:1: a: anchors and aliases are not allowed"),
        ("a:\n  b: *x\n", "c.yaml:2: a.b: anchors and aliases are not allowed"),
        ("&x a: 1\n", "c.yaml:1: anchors and aliases are not allowed"),
        ("&x\na: 1\n", "c.yaml:1: anchors and aliases are not allowed"),
        ("*x : 1\n", "c.yaml:1: anchors and aliases are not allowed"),
        ("a: [1, &l [2]]\n", "c.yaml:1: a[1]: anchors and aliases are not allowed"),
        ("a:\n  <<: {b: 1}\n", "c.yaml:2: a: merge keys are not allowed"),
        # tags
        ("a: !!int '3'\n", "c.yaml:1: a: tags are not allowed"),
        ("a: !!python/object/apply:os.system [ls]\n", "c.yaml:1: a: tags are not allowed"),
        ("\n!!str a: 1\n", "c.yaml:2: tags are not allowed"),
        ("a: ! x\n", "c.yaml:1: a: tags are not allowed"),
        # keys
        ("? [a, b]\n: 1\n", "c.yaml:1: keys must be text"),
        ("x:\n  ? {a: b}\n  : 1\n", "c.yaml:2: x: keys must be text"),
        # numbers
        ("a: .nan\n", "c.yaml:1: a: not a finite number"),
        ("a: [.inf]\n", "c.yaml:1: a[0]: not a finite number"),
        ("a: -.Inf\n", "c.yaml:1: a: not a finite number"),
        ("a: 1e999\n", "c.yaml:1: a: not a finite number"),
        ("a: -1e999\n", "c.yaml:1: a: not a finite number"),
        ("\na: " + "9" * 19, "c.yaml:2: a: a number of more than 18 digits"),
        ("a: " + "9" * 100_000, "c.yaml:1: a: a number of more than 18 digits"),
        ('a: 1\nb: "\\U99999999"\n', "c.yaml:2: not YAML: a number out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1\n", "c.yaml:1: not YAML: a number out of range"),
        # documents
        ("a: 1\n---\nb: 2\n", "c.yaml:2: a second document"),
        ("---\n---\n", "c.yaml:2: a second document"),
        # text
        ('a: "\\0"\n', "c.yaml:1: a: text with a NUL character or half a surrogate pair"),
        ('a:\n  "\\ud800": 1\n', "c.yaml:2: a: text with a NUL character or half a surrogate pair"),
        (b"a: 1\nb: \xff\n", "c.yaml:2: not UTF-8"),
        (b"\xff\xfea\x00", "c.yaml:1: not UTF-8"),
        ("a: 1\nb: x\u2028y\n", "c.yaml:2: the character U+2028; write it as an escape in double quotes"),
        ("# \x85\n", "c.yaml:1: the character U+0085; write it as an escape in double quotes"),
        ("a: 1\nb: \x07\n", "c.yaml:2: a character that YAML does not allow"),
        ("a: 1\nb: 2\nc: \x00\n", "c.yaml:3: a character that YAML does not allow"),
    ],
)
def test_refused(text: str | bytes, cause: str) -> None:
    assert cause_of(text) == cause


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b: c\n", 1),
        ("a:\n\tb: 1\n", 2),
        ("x: 1\na: [1, 2\n", 3),
        ("a: 'open\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a: @x\n", 1),
        ("a: !undefined!x 1\n", 1),
        ("x: 1\n\nfree text\n", 4),
        ('a: "\\q"\n', 1),
    ],
)
def test_not_yaml(text: str, line: int) -> None:
    assert cause_of(text).startswith(f"c.yaml:{line}: not YAML: ")


def test_depth() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(deep) is not None
    assert f"nested deeper than {MAX_DEPTH} levels" in cause_of("[" + deep + "]")


@pytest.mark.parametrize("unit", ["[", "{", "- ", "? ", "[{a: ", "&a [", "{a: {", "!x [", '"'])
def test_deep_files_are_refused_at_once(unit: str) -> None:
    """Bounded work and no deep recursion, whatever is nested."""
    assert cause_of(unit * (MAX_FILE_BYTES // len(unit))).startswith("c.yaml:")


def test_an_alias_bomb_is_refused_at_its_first_line() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert cause_of("\n".join(lines)) == "c.yaml:1: a0: anchors and aliases are not allowed"


def test_no_value_is_ever_repeated() -> None:
    secret = "sk-verysecret"
    for text in (f"a: {secret}: x", f"a: &{secret} 1", f"a: !{secret} 1", f"a: '{secret}", f"a: [{secret}\nb: 1"):
        assert secret not in cause_of(text)


LETTERS = st.sampled_from("ab:{}[],&*!|>'\"%@-? \n\r\t#0.~<\\")
WORDS = st.sampled_from(
    ["%YAML ", "%TAG ! x", "9" * 30, "---", "...", "<<", "\\U99999999", "\\u12", "!!x", "\ufeff", "? "]
)


@given(st.binary(max_size=200) | st.lists(LETTERS | WORDS, max_size=30).map("".join).map(str.encode))
def test_any_bytes_give_a_tree_or_one_named_error(data: bytes) -> None:
    cause: str | None = "c.yaml:"
    try:
        parse(data)
    except NousError as error:
        cause = error.cause
    assert str(cause).startswith("c.yaml:")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("max_runs", "max_runs"),
        ("a b", "a b"),
        ("\x1b[31m", "'\\x1b[31m'"),
        ("é", "'\\xe9'"),
        ("x" * 100, f"'{'x' * 64}'"),
    ],
)
def test_keys_in_messages_are_harmless(key: str, shown: str) -> None:
    assert show_key(key) == shown


# Files


def test_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"a: 1\n")
    assert read_source(tmp_path / "c.yaml") == SourceFile(str(tmp_path / "c.yaml"), b"a: 1\n")


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "c.yaml")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(NousError, match="not a regular file") as caught:
        read_source(tmp_path / "c.yaml")
    assert caught.value.code == "invalid_config"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NousError, match="not a regular file"):
        read_source(tmp_path)


def test_refusing_leaks_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - /dev/fd cannot be listed by pathlib while it changes
    for _ in range(20):
        with pytest.raises(NousError):
            read_source(tmp_path)
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208


def test_too_long(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * MAX_FILE_BYTES)
    assert len(read_source(path).data) == MAX_FILE_BYTES
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(NousError, match=f"longer than {MAX_FILE_BYTES} bytes") as caught:
        read_source(path)
    assert caught.value.code == "invalid_config"


def test_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NousError, match="file/c") as caught:
        read_source(tmp_path / "file" / "c.yaml")
    assert caught.value.code == "io_failure"


@needs_user
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch(0o000)
    with pytest.raises(NousError, match=r"c\.yaml") as caught:
        read_source(tmp_path / "c.yaml")
    assert caught.value.code == "io_failure"
