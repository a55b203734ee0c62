"""Trust in content: what is the same is trusted, whatever differs is not, and no number of processes confuses it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import NousError
from nous.system import trust
from nous.system.trust import TrustStore, digest_bytes, digest_tree

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "extension"
    (root / "lib").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "main.py").write_bytes(b"print('hello')\n")
    (root / "lib" / "deep.py").write_bytes(b"x = 1\n")
    (root / "link.py").symlink_to("main.py")
    return root


class TestStore:
    def test_knows_what_was_trusted_what_changed_and_what_it_never_saw(self, state: Path, tmp_path: Path) -> None:
        store, path = TrustStore(state), tmp_path / "config.yaml"
        assert store.check(path, digest_bytes(b"a")) == "unknown"
        store.trust(path, digest_bytes(b"a"))
        assert store.check(path, digest_bytes(b"a")) == "trusted"
        assert store.check(path, digest_bytes(b"b")) == "changed"
        assert store.check(tmp_path / "other.yaml", digest_bytes(b"a")) == "unknown"

    def test_trusting_again_takes_the_place_of_what_was_trusted(self, state: Path, tmp_path: Path) -> None:
        store = TrustStore(state)
        store.trust(tmp_path, "one")
        store.trust(tmp_path, "two")
        assert [store.check(tmp_path, digest) for digest in ("one", "two")] == ["changed", "trusted"]
        assert [record.digest for record in store.records()] == ["two"]

    def test_another_store_of_the_same_directory_knows_it_too(self, state: Path, tmp_path: Path) -> None:
        TrustStore(state).trust(tmp_path, "one")
        assert TrustStore(state).check(tmp_path, "one") == "trusted"

    def test_what_is_forgotten_is_unknown(self, state: Path, tmp_path: Path) -> None:
        store = TrustStore(state)
        assert not store.forget(tmp_path)
        store.trust(tmp_path, "one")
        assert store.forget(tmp_path)
        assert store.check(tmp_path, "one") == "unknown"

    def test_asking_needs_no_state_directory_and_makes_none(self, tmp_path: Path) -> None:
        store = TrustStore(tmp_path / "absent")
        assert store.check(tmp_path, "one") == "unknown"
        assert store.records() == []
        assert not store.forget(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_nothing_it_writes_is_open_to_others(self, state: Path, tmp_path: Path) -> None:
        TrustStore(state).trust(tmp_path, "one")
        (record,) = (state / "trust").iterdir()
        assert stat.S_IMODE((state / "trust").stat().st_mode) == 0o700
        assert stat.S_IMODE(record.stat().st_mode) == 0o600

    def test_a_path_is_the_same_by_whichever_link_it_is_named(self, state: Path, tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.mkdir()
        (tmp_path / "link").symlink_to("real")
        TrustStore(state).trust(tmp_path / "link", "one")
        assert TrustStore(state).check(real, "one") == "trusted"

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"path":"x"}', b"\xff\xfe"])
    def test_a_record_that_cannot_be_read_trusts_nothing(self, state: Path, tmp_path: Path, damage: bytes) -> None:
        store = TrustStore(state)
        store.trust(tmp_path, "one")
        (record,) = (state / "trust").iterdir()
        record.write_bytes(damage)
        assert store.check(tmp_path, "one") == "unknown"
        assert store.records() == []

    def test_a_name_that_is_no_text_can_be_trusted(self, state: Path, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        TrustStore(state).trust(path, "one")
        assert TrustStore(state).check(path, "one") == "trusted"
        assert TrustStore(state).records()[0].path.endswith("caf\\xe9")

    def test_a_place_that_cannot_be_written_is_an_error_that_names_it(self, state: Path, tmp_path: Path) -> None:
        (state / "trust").write_bytes(b"a file")
        with pytest.raises(NousError, match="trust") as caught:
            TrustStore(state).trust(tmp_path, "one")
        assert caught.value.code == "io_failure"

    def test_processes_that_trust_the_same_path_at_once_leave_one_whole_record(
        self, state: Path, tmp_path: Path
    ) -> None:
        program = (
            "import sys; from pathlib import Path; from nous.system.trust import TrustStore\n"
            "for n in range(100): TrustStore(Path(sys.argv[1])).trust(Path(sys.argv[2]), f'{sys.argv[3]}-{n}')"
        )
        writers = [
            subprocess.Popen([sys.executable, "-c", program, str(state), str(tmp_path), name]) for name in ("a", "b")
        ]
        seen = set()
        while any(writer.poll() is None for writer in writers):
            seen |= {record.digest for record in TrustStore(state).records()}
        assert [writer.returncode for writer in writers] == [0, 0]
        assert {record.digest for record in TrustStore(state).records()} <= {"a-99", "b-99"}
        assert seen <= {f"{name}-{n}" for name in "ab" for n in range(100)}
        assert len(list((state / "trust").iterdir())) == 1


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"#")


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def unlink_and_copy(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: append(root / "main.py"),
    "content deep down": lambda root: append(root / "lib" / "deep.py"),
    "same length": lambda root: (root / "main.py").write_bytes(b"print('HELLO')\n"),
    "new file": lambda root: (root / "new").write_bytes(b""),
    "hidden file": lambda root: (root / ".hidden").write_bytes(b""),
    "cache": lambda root: (root / "__pycache__").mkdir(),
    "gone": lambda root: (root / "main.py").rename(root.parent / "elsewhere"),
    "renamed": lambda root: (root / "main.py").rename(root / "Main.py"),
    "moved": lambda root: (root / "main.py").rename(root / "lib" / "main.py"),
    "executable": lambda root: (root / "main.py").chmod(0o755),
    "empty directory gone": lambda root: (root / "empty").rmdir(),
    "link elsewhere": lambda root: link(root / "link.py", "lib"),
    "link to the same by another way": lambda root: link(root / "link.py", "lib/../main.py"),
    "file in place of the link": lambda root: unlink_and_copy(root / "link.py"),
}


class TestTree:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_every_change_shows(self, tree: Path, change: Callable[[Path], object]) -> None:
        before = digest_tree(tree)
        change(tree)
        assert digest_tree(tree) != before

    def test_what_is_no_content_does_not_count(self, tree: Path, tmp_path: Path) -> None:
        before = digest_tree(tree)
        os.utime(tree / "main.py", (1, 1))
        tree.rename(tmp_path / "moved")
        assert digest_tree(tmp_path / "moved") == before

    def test_a_file_and_a_tree_never_have_the_same_digest(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        assert digest_tree(empty).removeprefix("tree-") == digest_bytes(b"").removeprefix("file-")
        assert digest_tree(empty) != digest_bytes(b"")

    def test_a_link_that_leads_out_is_refused(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"x")
        (tree / "lib" / "way-out").symlink_to("../../secret")
        with pytest.raises(NousError, match="way-out is a link that leads out") as caught:
            digest_tree(tree)
        assert caught.value.code == "unsafe_operation"

    def test_a_link_to_a_neighbour_whose_name_begins_the_same_leads_out(self, tree: Path) -> None:
        (tree.parent / "extension-2").mkdir()
        (tree / "way-out").symlink_to("../extension-2")
        with pytest.raises(NousError, match="leads out"):
            digest_tree(tree)

    def test_a_link_that_leads_nowhere_or_to_itself_within_the_tree_is_content_like_any(self, tree: Path) -> None:
        before = digest_tree(tree)
        (tree / "dangling").symlink_to("absent")
        (tree / "loop").symlink_to("loop")
        assert digest_tree(tree) == digest_tree(tree) != before

    def test_a_socket_is_refused(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s")
            with pytest.raises(NousError, match="neither a file nor a directory"):
                digest_tree(tree)

    def test_a_pipe_is_refused_without_waiting_for_a_writer(self, tree: Path) -> None:
        os.mkfifo(tree / "pipe")
        with pytest.raises(NousError, match="neither a file nor a directory"):
            digest_tree(tree)

    def test_a_tree_that_is_too_large_is_refused(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trust, "MAX_TREE_FILES", 3)
        with pytest.raises(NousError, match="too large"):
            digest_tree(tree)
        monkeypatch.setattr(trust, "MAX_TREE_FILES", 100)
        monkeypatch.setattr(trust, "MAX_TREE_BYTES", 10)
        with pytest.raises(NousError, match="too large"):
            digest_tree(tree)

    def test_a_tree_that_is_too_deep_is_refused(self, tree: Path) -> None:
        tree.joinpath(*["d"] * 70).mkdir(parents=True)
        with pytest.raises(NousError, match="nested deeper"):
            digest_tree(tree)

    def test_a_directory_that_is_not_there_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(NousError, match="absent") as caught:
            digest_tree(tmp_path / "absent")
        assert caught.value.code == "io_failure"

    @needs_user
    def test_a_file_that_cannot_be_read_is_an_error_that_names_it(self, tree: Path) -> None:
        (tree / "main.py").chmod(0)
        with pytest.raises(NousError, match=r"main\.py"):
            digest_tree(tree)

    def test_the_digest_is_the_same_in_every_process_and_version(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"content")
        assert digest_tree(tmp_path) == "tree-sha256:e84e0b175b332dfa557e50f12c352651a3834f269f56971e423d10c898c07580"


NAMES = st.text(st.sampled_from("ab,:0123"), min_size=1, max_size=4)


@given(
    one=st.dictionaries(NAMES, st.binary(max_size=3), max_size=4),
    two=st.dictionaries(NAMES, st.binary(max_size=3), max_size=4),
)
def test_different_trees_have_different_digests(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    digests = []
    for files in (one, two):
        root = tmp_path_factory.mktemp("tree")
        for name, content in files.items():
            (root / name).write_bytes(content)
        digests.append(digest_tree(root))
    assert (digests[0] == digests[1]) == (one == two)
