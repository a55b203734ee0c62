"""A start loads what the first answer needs, and the rest soon after: nobody waits for what no run uses yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import ROOT, SCALE, TEST_SECONDS

LATER = (
    "nous.runtime.run",
    "nous.engine.machine",
    "nous.tools.registry",
    "nous.store.trace_reader",
    "nous.providers.direct",
    "httptools",
)
"""What a run needs and a first answer does not."""

NEVER = ("httpx", "httpx2", "structlog", "yaml", "jsonschema", "pathspec", "shutil", "nous.extensions.host")


def run(program: str, *arguments: str) -> list[str]:
    """Run a program that prints to stderr, with an input that has ended."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TEST_SECONDS * SCALE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def serve(tmp_path: Path, then: str) -> list[str]:
    """Serve a daemon whose input has ended already, and afterwards run ``then``."""
    program = f"""
import sys
from nous.cli.main import main
main(["serve", "--provider", "openai", "--api-base", "http://127.0.0.1:1", "--model", "m", "--bootstrap",
      "--state-dir", sys.argv[1], "--workdir", sys.argv[2]])
{then}
"""
    return run(program, str(tmp_path / "state"), str(tmp_path))


def test_what_only_a_run_needs_is_not_there_when_a_daemon_is_made(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import nous.cli.serve as serve
from nous.cli.options import load_settings, parse
options = parse(serve.make_parser(), ["--provider", "openai", "--api-base", "http://127.0.0.1:1", "--model", "m",
                                      "--bootstrap", "--state-dir", sys.argv[1]])
settings = load_settings(options).settings
state = serve.open_state_dir(Path(sys.argv[1]), "--bootstrap")
world = serve.make_world("openai", settings, state.traces)
serve.make_daemon(settings, state, Path(sys.argv[1]), world, "epoch")
print(*(name for name in {(*LATER, *NEVER, "ctypes")!r} if name in sys.modules), file=sys.stderr)
"""
    assert run(program, str(tmp_path / "state")) == []


def test_what_a_run_needs_is_loaded_ahead_and_nothing_else() -> None:
    program = f"""
import sys
import nous.cli.serve as serve
serve.load_ahead()
print(*(name for name in {LATER[:4]!r} if name not in sys.modules), file=sys.stderr)
print(*(name for name in {NEVER!r} if name in sys.modules), file=sys.stderr)
"""
    assert run(program) == []


def test_garbage_is_collected_again_once_a_daemon_serves_and_what_was_imported_is_left_alone(tmp_path: Path) -> None:
    then = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 10_000, file=sys.stderr)"
    assert serve(tmp_path, then) == ["True", "True"]


def test_garbage_is_collected_again_after_a_start_that_was_refused() -> None:
    program = """
import gc, sys
from nous.cli.main import main
assert main(["serve", "--no-such-flag"]) == 6
print(gc.isenabled(), file=sys.stderr)
"""
    assert run(program)[-1] == "True"


def test_a_daemon_that_could_not_load_ahead_serves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("- - text: 'Hello'\n", encoding="utf-8")
    program = """
import sys
import nous.cli.serve as serve
from nous.cli.main import main
def load_ahead():
    raise ImportError("broken")
serve.load_ahead = load_ahead
main(["serve", "--provider", "mock", "--script", sys.argv[1] + "/script.yaml", "--bootstrap", "--log-level", "info",
      "--state-dir", sys.argv[1] + "/state", "--workdir", sys.argv[1]])
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stderr is not None
        assert any("not_loaded_ahead" in line for line in daemon.stderr)
        out, _ = daemon.communicate(
            '{"id":"1","type":"prompt","payload":{"text":"hi","wait":true}}\n', timeout=TEST_SECONDS * SCALE
        )
    assert '"type":"result"' in out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux closes a process's memory to its user")
def test_a_daemon_closes_its_memory_without_being_asked_for_a_child() -> None:
    program = """
import sys
import nous.cli.serve as serve
from nous.system import prctl, process
def is_dumpable():
    return prctl._load()(3, 0, 0, 0, 0)
process.harden_before_first_child()
print(is_dumpable(), file=sys.stderr)
serve.load_ahead()
print(is_dumpable(), file=sys.stderr)
"""
    assert run(program) == ["1", "0"]


def test_structs_that_are_decoded_are_annotated_with_types() -> None:
    """Annotations that were left as strings (``from __future__ import annotations``) are evaluated again, one by one,
    for every decoder that msgspec makes: that was a tenth of a start."""
    program = """
import __future__, sys
import msgspec, nous.cli.serve, nous.runtime.run
for name, module in sorted(sys.modules.items()):
    postpones = getattr(module, "annotations", None) is __future__.annotations
    found = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, msgspec.Struct)]
    if name.startswith("nous.") and postpones and any(x.__module__ == name for x in found):
        print(name, file=sys.stderr)
"""
    never_decoded = {"nous.runtime.prompters", "nous.store.rewrite", "nous.store.torn"}
    assert set(run(program)) == never_decoded
