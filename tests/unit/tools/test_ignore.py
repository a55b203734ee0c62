""".gitignore: what git itself says is the measure."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nous.tools.ignore import IgnoreFile, IgnoreRules, read_ignore_file, rules_above
from nous.tools.walk import Walk

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

names = st.sampled_from(["a", "b", "ab", "a.c", "b.c", "build", "!x", "#x"])
globs = st.sampled_from(["*", "?", "a*", "*.c", "[ab]", "[!a]*", "**", "build", "a", "b", "a.c", "\\!x", "\\#x"])
lines = st.builds(
    lambda bang, root, segments, slash: bang + root + "/".join(segments) + slash,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(globs, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
noise = st.sampled_from(["", "# comment", "   ", "trailing   ", "/", "!", "\\", "[", "a[", "a\\ "])
ignore_files = st.lists(lines | noise, max_size=5)
trees = st.sets(st.lists(names, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)


def make_tree(root: Path, files: set[str]) -> None:
    for name in sorted(files):
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            continue  # a file and a directory of one name: the first one stays


def ask_git(root: Path) -> set[str]:
    """Return the files that git would add."""
    output = subprocess.run(
        ["git", "-c", "core.excludesFile=", "ls-files", "--others", "--exclude-per-directory=.gitignore", "-z"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    ).stdout
    return set(output.decode().split("\0")) - {""}


def walk(start: Path, top: Path | None = None) -> set[str]:
    return {entry.path for entry in Walk(str(start), str(top or start), ()) if not entry.is_directory}


@needs_git
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(files=trees, top=ignore_files, inner=st.dictionaries(names, ignore_files, max_size=2))
def test_what_is_left_is_what_git_would_add(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], top: list[str], inner: dict[str, list[str]]
) -> None:
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", root], check=True, timeout=30)
    make_tree(root, files)
    for directory, text in [("", top), *inner.items()]:
        if (root / directory).is_dir():
            (root / directory / ".gitignore").write_text("\n".join(text) + "\n")
    # An empty repository within would be one entry to git.
    assert walk(root) == ask_git(root)
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["*", "!*/", "!*.py"], ["x.txt", "sub/x.txt"], ["a.py", "sub/a.py", "sub/"]),
        (["/foo/*", "!/foo/keep"], ["foo/x"], ["foo/", "foo/keep", "bar/foo/x"]),
        (["a/**", "!a/keep"], ["a/x", "a/b/x"], ["a/", "a/keep"]),
        (["build/"], ["build/", "x/build/"], ["build", "x/build"]),
        (["*.log", "!sub/"], ["sub/x.log"], ["sub/"]),
        (["trailing  ", "kept\\ "], ["trailing", "kept "], ["trailing  ", "kept"]),
        (["crlf\r", "\\#hash", "\\!bang"], ["crlf", "#hash", "!bang"], ["crlf\r"]),
        (["\ufefffirst"], ["first"], []),
        (["état*", "a\u2028b"], ["états", "a\u2028b"], ["a"]),
        (["{a,b}"], ["{a,b}"], ["a", "b"]),
        (["[z-a]", "good"], ["good"], ["z", "a"]),
    ],
)
def test_by_hand(lines: list[str], ignored: list[str], kept: list[str]) -> None:
    file = IgnoreFile("\n".join(lines))

    def verdict(path: str) -> bool | None:
        return file.verdict(path.removesuffix("/"), is_directory=path.endswith("/"))

    assert [path for path in ignored if not verdict(path)] == []
    assert [path for path in kept if verdict(path)] == []


def test_the_deepest_file_that_says_something_decides() -> None:
    rules = IgnoreRules((("/top", IgnoreFile("*.log\n*.tmp\n")), ("/top/sub", IgnoreFile("!keep.log\n"))))
    assert not rules.ignores("/top/sub/keep.log", is_directory=False)
    assert rules.ignores("/top/sub/other.log", is_directory=False)
    assert rules.ignores("/top/sub/keep.tmp", is_directory=False)
    assert not rules.ignores("/top/sub/other", is_directory=False)


def test_files_that_are_not_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    assert read_ignore_file(fd) is None
    (tmp_path / "elsewhere").write_text("*")
    (tmp_path / ".gitignore").symlink_to("elsewhere")
    assert read_ignore_file(fd) is None
    (tmp_path / ".gitignore").unlink()
    os.mkfifo(tmp_path / ".gitignore")
    assert read_ignore_file(fd) is not None
    (tmp_path / ".gitignore").unlink()
    (tmp_path / ".gitignore").mkdir()
    assert read_ignore_file(fd) is None
    os.close(fd)


def test_rules_above_begin_at_the_repository(tmp_path: Path) -> None:
    make_tree(tmp_path, {"repo/pkg/src/x.log", "repo/pkg/src/x.tmp", "repo/pkg/src/x.py", "repo/.git/HEAD"})
    (tmp_path / ".gitignore").write_text("*.py\n")
    (tmp_path / "repo" / ".gitignore").write_text("*.log\n")
    (tmp_path / "repo" / "pkg" / ".gitignore").write_text("*.tmp\n")
    assert walk(tmp_path / "repo/pkg/src", tmp_path / "repo/pkg") == {"x.py"}
    shutil.rmtree(tmp_path / "repo/.git")
    assert walk(tmp_path / "repo/pkg/src", tmp_path / "repo/pkg") == {"x.py", "x.log"}
    assert walk(tmp_path / "repo/pkg/src", tmp_path / "elsewhere") == {"x.py", "x.log", "x.tmp"}


def test_whoever_names_an_ignored_directory_sees_it(tmp_path: Path) -> None:
    make_tree(tmp_path, {".git/HEAD", "out/deep/x.o", "out/deep/x.log"})
    (tmp_path / ".gitignore").write_text("out/\n*.o\n")
    (tmp_path / "out" / "deep" / ".gitignore").write_text("*.log\n")
    assert walk(tmp_path) == {".gitignore"}
    assert walk(tmp_path / "out" / "deep", tmp_path) == {".gitignore", "x.o"}


def test_a_repository_within_knows_nothing_of_those_above(tmp_path: Path) -> None:
    make_tree(tmp_path, {".git/HEAD", "x.log", "inner/.git/HEAD", "inner/x.log", "inner/sub/x.log"})
    (tmp_path / ".gitignore").write_text("*.log\n")
    assert walk(tmp_path) == {".gitignore", "inner/x.log", "inner/sub/x.log"}
    assert walk(tmp_path / "inner", tmp_path) == {"x.log", "sub/x.log"}


def test_nothing_above_the_root_of_everything() -> None:
    fd = os.open("/", os.O_RDONLY)
    assert not rules_above(fd, "/", "/").ignores("/x", is_directory=False)
    os.close(fd)
