"""Scripts for the mock: what is read, and how what is wrong is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nous.errors import NousError
from nous.providers.script import (
    MAX_NDJSON_BYTES,
    Match,
    ScriptedCall,
    ScriptedError,
    ScriptedToolCall,
    ScriptedUsage,
    Step,
    TextRepeat,
    Thinking,
    load_script,
)


def load(tmp_path: Path, text: str | bytes, name: str = "script.yaml") -> list[ScriptedCall]:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_script(path)


ALL_STEPS = """
- - text: Hello
  - text: [a, b]
  - text_repeat: {text: x, count: 200000, chunk: 100}
  - thinking: hm
  - thinking: {text: [h, m], signature: s}
  - delay_ms: 0
  - tool_call: {name: read, arguments: {path: a.txt}, id: c1, fragments: 3}
  - tool_call: {name: read, arguments: '{"pa'}
  - tool_call: {name: ls}
  - usage: {input_tokens: 1, cached_tokens: 1}
  - finish: length
  - usage: {output_tokens: 2}
- match: {text: hi, session_id: s1, purpose: answer}
  steps:
  - error: {status: 429, retry_after_ms: 10}
- - error: {code: provider_error, cause: because}
- - cut: true
- - hang: true
- []
"""


def test_every_step(tmp_path: Path) -> None:
    assert load(tmp_path, ALL_STEPS) == [
        ScriptedCall(
            [
                Step(text="Hello"),
                Step(text=["a", "b"]),
                Step(text_repeat=TextRepeat("x", 200_000, 100)),
                Step(thinking="hm"),
                Step(thinking=Thinking(["h", "m"], "s")),
                Step(delay_ms=0),
                Step(tool_call=ScriptedToolCall("read", {"path": "a.txt"}, "c1", 3)),
                Step(tool_call=ScriptedToolCall("read", '{"pa')),
                Step(tool_call=ScriptedToolCall("ls", {})),
                Step(usage=ScriptedUsage(input_tokens=1, cached_tokens=1)),
                Step(finish="length"),
                Step(usage=ScriptedUsage(output_tokens=2)),
            ]
        ),
        ScriptedCall([Step(error=ScriptedError(status=429, retry_after_ms=10))], Match("hi", "s1", "answer")),
        ScriptedCall([Step(error=ScriptedError(code="provider_error", cause="because"))]),
        ScriptedCall([Step(cut=True)]),
        ScriptedCall([Step(hang=True)]),
        ScriptedCall([]),
    ]


def test_ndjson_has_a_call_per_line_and_keeps_half_pairs(tmp_path: Path) -> None:
    text = '[{"text":"a\\ud83d"}]\n\n{"steps":[{"text":"\u2028"}],"match":{"text":"x"}}\r\n'
    assert load(tmp_path, text, "script.ndjson") == [
        ScriptedCall([Step(text="a\ud83d")]),
        ScriptedCall([Step(text="\u2028")], Match("x")),
    ]


def test_an_empty_list_is_a_script(tmp_path: Path) -> None:
    assert load(tmp_path, "[]") == []
    assert load(tmp_path, "\n", "s.jsonl") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- - txt: a", "call 1: Object contains unknown field `txt` - at `$[0]`"),
        ("- - text: a\n- - text: 1", "call 2: Expected `str | array | null`, got `int` - at `$[0].text`"),
        ("- - text: a\n    cut: true", "call 1: a step holds exactly one of"),
        ("- - {}", "exactly one of"),
        ("- - cut: false", "exactly one of"),
        ("- - text_repeat: {text: a, count: 0}", "`int` >= 1 - at `$[0].text_repeat.count`"),
        ("- - text_repeat: {text: a}", "missing required field `count`"),
        ("- - tool_call: {arguments: {}}", "missing required field `name`"),
        ("- - tool_call: {name: a, fragments: 0}", "`int` >= 1"),
        ("- - delay_ms: -1", "`int` >= 0"),
        ("- - delay_ms: 1.5", "Expected `int | null`, got `float`"),
        ("- - finish: done", "Invalid enum value 'done'"),
        ("- - error: {}", "either a code or a status"),
        ("- - error: {code: provider_error, status: 500}", "either a code or a status"),
        ("- - error: {code: internal_error}", "code is one of"),
        ("- - error: {status: 200}", "`int` >= 300"),
        ("- - cut: true\n  - text: a", "nothing can follow the end of a call"),
        ("- - finish: stop\n  - text: a", "nothing can follow"),
        ("- - finish: stop\n  - finish: stop", "nothing can follow"),
        ("- - hang: true\n  - usage: {}", "nothing can follow"),
        ("- match: {txt: a}\n  steps: []", "unknown field `txt` - at `$.match`"),
        ("- match: {}", "missing required field `steps`"),
        ("- 1", "call 1: Expected `object | array`, got `int`"),
        ("a: 1", "not a list of model calls"),
        ("", "not a list of model calls"),
        ("- [", ":1: not YAML: "),
        ("- - text: a\n    text: b", ":2: [0][0].text: duplicate key"),
        ("- !!python/object:os.system {}", ":1: [0]: tags are not allowed"),
        ("\x00", ":1: a character that YAML does not allow"),
        (b"- - text: \xff", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(NousError) as caught:
        load(tmp_path, text)
    assert caught.value.code == "invalid_config"
    assert str(tmp_path / "script.yaml") in (caught.value.cause or "")
    assert problem in (caught.value.cause or "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]\n{", "line 2: "),
        ('[{"text":"a","text":"b"}]', "line 1: a key stands there twice"),
        ('[]\n[]\n[{"delay_ms":"a"}]', "line 3: Expected `int | null`, got `str` - at `$[0].delay_ms`"),
        ("[" * 100_000, "line 1: "),
    ],
)
def test_what_is_wrong_in_ndjson_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(NousError) as caught:
        load(tmp_path, text, "script.ndjson")
    assert caught.value.code == "invalid_config"
    assert problem in (caught.value.cause or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NousError, match="No such file") as caught:
        load_script(tmp_path / "none.yaml")
    assert caught.value.code == "invalid_config"


def test_a_model_may_say_any_text_in_yaml_too(tmp_path: Path) -> None:
    assert load(tmp_path, r'- - text: "a\0\ud83d"') == [ScriptedCall([Step(text="a\0\ud83d")])]


def test_an_alias_bomb_is_refused_at_its_first_line(tmp_path: Path) -> None:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(NousError, match="anchors and aliases are not allowed"):
        load(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("name", ["script.yaml", "script.ndjson"])
def test_only_a_regular_file_of_a_bounded_size_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    with pytest.raises(NousError, match="not a regular file"):
        load_script(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NousError, match="not a regular file"):
        load_script(path)
    path.unlink()
    path.touch()
    os.truncate(path, MAX_NDJSON_BYTES + 1)
    with pytest.raises(NousError, match=r"longer than \d+ bytes"):
        load_script(path)
