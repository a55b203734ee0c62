"""Where extensions are found, and whose they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from nous.errors import NousError
from nous.extensions.clearance import find_distrust
from nous.extensions.copies import copy_extension
from nous.extensions.discovery import find_installed, look_at, origin_of
from nous.extensions.places import may_be_any, project_directory, user_directory
from nous.system.trust import TrustStore, digest_tree
from tests.support.extension_programs import write_extension


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


def test_nothing_anywhere(tmp_path: Path, environ: dict[str, str]) -> None:
    assert not may_be_any(tmp_path, environ, tmp_path / "state")
    assert find_installed(tmp_path, environ) == []


def test_the_user_s_place_follows_xdg(tmp_path: Path) -> None:
    assert user_directory({"HOME": "/h"}) == Path("/h/.config/nous/extensions")
    assert user_directory({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/nous/extensions")
    assert user_directory({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}) == Path("/h/.config/nous/extensions")


def test_the_user_s_come_first_and_keep_their_names(tmp_path: Path, environ: dict[str, str]) -> None:
    user, project = user_directory(environ), project_directory(tmp_path)
    for place, names in ((project, ("both", "ours")), (user, ("mine", "both"))):
        for name in names:
            write_extension(place, name)
    (project / "no-manifest").mkdir()
    (project / "a-file").write_text("", encoding="utf-8")
    assert may_be_any(tmp_path, environ, tmp_path / "state")
    found = find_installed(tmp_path, environ)
    assert [(one.name, one.origin, one.fault is None) for one in found] == [
        ("both", "user", True),
        ("mine", "user", True),
        ("both", "project", False),
        ("ours", "project", True),
    ]
    assert "has the same name" in str(found[2].fault)


def test_a_broken_manifest_takes_no_name_from_another(tmp_path: Path, environ: dict[str, str]) -> None:
    write_extension(project_directory(tmp_path), "one", nonsense=1)
    write_extension(project_directory(tmp_path), "two")
    assert [one.fault is None for one in find_installed(tmp_path, environ)] == [False, True]


def test_a_link_into_the_user_s_place_is_still_the_project_s(tmp_path: Path, environ: dict[str, str]) -> None:
    mine = write_extension(user_directory(environ), "mine")
    ours = write_extension(project_directory(tmp_path), "ours")
    assert origin_of(mine, environ) == "user"
    assert origin_of(ours, environ) == "project"
    (project_directory(tmp_path) / "linked").symlink_to(mine)
    found = {one.directory.name: one for one in find_installed(tmp_path, environ)}
    assert found["linked"].origin == "project"


def test_trust_is_asked_of_projects_only(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = write_extension(project_directory(tmp_path), "one")
    store = TrustStore(tmp_path / "state")
    (tmp_path / "state").mkdir()
    assert find_distrust(look_at(directory, "user"), store) is None
    assert "is not trusted" in str(find_distrust(look_at(directory, "project"), store))
    store.trust(directory, digest_tree(directory))
    assert find_distrust(look_at(directory, "project"), store) is None
    (directory / "main.py").chmod(0o755)
    assert "has changed since it was trusted" in str(find_distrust(look_at(directory, "project"), store))


def test_a_tree_that_leads_out_is_refused(tmp_path: Path) -> None:
    directory = write_extension(tmp_path, "one")
    (directory / "secret").symlink_to("/etc/passwd")
    with pytest.raises(NousError):
        copy_extension(directory, tmp_path / "state")
    assert not list((tmp_path / "state").rglob("secret"))
