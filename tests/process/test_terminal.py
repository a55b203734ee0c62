"""What the command line writes: nothing of others steers the terminal, and a reader that goes away is no failure."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from nous.cli.main import EXIT_OUTPUT_CLOSED
from tests.support.daemon import NOUS, run_nous
from tests.support.home import SCALE, TEST_SECONDS, Home

ESCAPE: Final = "\x1b]0;title\x07\x1b[2J\r\u009b1A\u202ehidden\u2066"
HOSTILE_BYTES: Final = tuple(c.encode() for c in ("\x1b]", "\x1b[2J", "\x07", "\u009b", "\u202e", "\u2066", "\ue0041"))
STYLE: Final = re.compile(rb"\x1b\[[0-9]{1,2}m")


class HostileHome(Home):
    """Every path in it, and what stands in its files, holds sequences that a terminal obeys."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.state = root / f"state{ESCAPE}"
        self.workdir = root / f"work{ESCAPE}"
        self.workdir.mkdir()

    def environ(self, setup: object = None) -> dict[str, str]:
        return {**super().environ(), "XDG_CONFIG_HOME": str(self.root / "config"), "TERM": "xterm"}


def on_terminal(home: Home, *arguments: str | Path) -> bytes:
    """Run ``nous`` with a terminal as stdout and stderr; return what was written there."""
    ours, theirs = pty.openpty()
    command = [*NOUS, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=home.workdir, env=home.environ()
    ) as process:
        os.close(theirs)
        out = b""
        try:
            while chunk := os.read(ours, 65536):
                out += chunk
        except OSError:
            pass  # how Linux says that the other end is closed
        finally:
            os.close(ours)
        process.wait(TEST_SECONDS * SCALE)
    return out


@pytest.fixture
def hostile(tmp_path: Path) -> HostileHome:
    home = HostileHome(tmp_path)
    flags = ("--state-dir", home.state)
    assert run_nous(home, "init", *flags).returncode == 0
    script = home.workdir / "script.ndjson"
    script.write_text('[{"text":"\\u001b[2J\\u202e\\u009b"}]\n')
    done = run_nous(home, "prompt", f"say {ESCAPE}", "--provider", "mock", "--script", script, *flags)
    assert done.returncode == 0, done.stderr
    extension = home.workdir / ".nous" / "extensions" / f"x{ESCAPE}"
    extension.mkdir(parents=True)
    command = '["sh", "-c", "echo gone #\\u001b[2J\\u202e\\u009b1A"]'
    (extension / "extension.yaml").write_text(f'name: x\ncommand: {command}\ndescription: "\\u001b[2J"\n')
    (home.workdir / ".nous" / "config.yaml").write_text('provider: {model: "m\\x1b[2J\\u202e"}\n')
    return home


def test_no_command_passes_on_what_a_terminal_obeys(hostile: HostileHome) -> None:
    flags = ("--state-dir", hostile.state)
    extension = next((hostile.workdir / ".nous" / "extensions").iterdir())
    (session,) = (hostile.state / "sessions").glob("*.ndjson")
    (trace,) = (hostile.state / "traces").glob("*.ndjson")
    config = hostile.workdir / "c.yaml"
    config.write_text('provider: {name: openai, model: "m\\x1b[2J\\u202e"}\n')
    commands: list[Sequence[str | Path]] = [
        ("init", *flags),
        ("prompt", f"say {ESCAPE}", "--provider", "mock", *flags),
        ("prompt", "x", "--provider", ESCAPE, *flags),
        ("trace", "list", *flags),
        ("trace", "show", trace.stem, *flags),
        ("trace", "show", f"none{ESCAPE}", *flags),
        ("trace", "validate", trace, hostile.workdir / "script.ndjson", *flags),
        ("trace", "diff", trace.stem, trace.stem, *flags),
        ("trace", "export", trace.stem, "-o", hostile.workdir / f"out{ESCAPE}", *flags),
        ("replay", trace, *flags),
        ("session", "list", *flags),
        ("session", "show", session.stem, *flags),
        ("session", "tree", session.stem, *flags),
        ("session", "verify", *flags),
        ("session", "export", session.stem, *flags),
        ("ext", "list", *flags),
        ("ext", "check", extension, *flags),
        ("ext", "trust", extension, *flags),
        ("trust", ".", *flags),
        ("trust", "--list", *flags),
        ("config", "show", "--config", config, *flags),
        ("config", "get", "provider.model", "--config", config, *flags),
        ("config", "get", f"provider.{ESCAPE}", *flags),
        ("models", "--provider", ESCAPE, *flags),
        ("doctor", *flags),
        ("gc", *flags),
        ("ctl", "ping", "--socket", hostile.workdir / "none", *flags),
        (ESCAPE,),
    ]
    raw = {}
    for command in commands:
        shown = STYLE.sub(b"", on_terminal(hostile, *command)).replace(b"\r\n", b"\n")
        if any(sequence in shown for sequence in (*HOSTILE_BYTES, b"\r")):
            raw[" ".join(map(str, command[:2]))] = shown
        assert shown or command[0] in ("session", "trace"), command
    assert raw == {}


def test_trust_shows_all_of_the_command_that_will_run(hostile: HostileHome) -> None:
    extension = next((hostile.workdir / ".nous" / "extensions").iterdir())
    shown = on_terminal(hostile, "ext", "trust", extension, "--state-dir", hostile.state)
    assert rb"echo gone #\x1b[2J\u202e\x9b1A" in shown


def closed_pipe(home: Home, *arguments: str | Path) -> tuple[int, bytes]:
    """Run ``nous`` with a stdout whose reader is gone; return its exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [*NOUS, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=home.workdir,
        env=home.environ(),
    ) as process:
        os.close(writer)
        errors = process.communicate(timeout=TEST_SECONDS * SCALE)[1]
    return process.returncode, errors


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("--version",),
        ("trace", "--help"),
        ("serve", "--help"),
        ("config", "show"),
        ("models", "--json"),
        ("trace", "list"),
        ("prompt", "hello", "--provider", "mock"),
        ("prompt", "hello", "--provider", "mock", "--json"),
        ("nothing", "--json"),
    ],
    ids=" ".join,
)
def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    home = Home(tmp_path)
    assert run_nous(home, "init").returncode == 0
    assert closed_pipe(home, *arguments) == (EXIT_OUTPUT_CLOSED, b"")


def test_a_full_disk_behind_stdout_is_said(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*NOUS, "--help"], stdout=full, stderr=subprocess.PIPE, env=home.environ(), check=False, timeout=60 * SCALE
        )
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
