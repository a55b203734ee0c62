"""docs/tools.md is held against the tools: every one, every argument, every limit."""

from __future__ import annotations

import re

from nous.tools import bash, changing, edit, find, grep, image_check, ls, output, search
from nous.tools.registry import builtin_tools
from tests.support.home import ROOT

PAGE = (ROOT / "docs/tools.md").read_text(encoding="utf-8")


def rows() -> dict[str, tuple[str, str]]:
    table = PAGE.split("| tool |")[1].split("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.split("\n")[2:]]
    return {name.strip(" `"): (arguments, limits) for name, arguments, limits in cells}


def test_every_tool_stands_there_with_its_arguments() -> None:
    tools = builtin_tools()
    assert list(rows()) == [tool.name for tool in tools]
    for tool in tools:
        assert re.findall(r"`(\w+)`", rows()[tool.name][0]) == list(tool.schema["properties"])


def test_the_limits_are_those_of_the_code() -> None:
    limits = {name: limit for name, (_, limit) in rows().items()}
    assert f"{output.MAX_LINES} lines or {output.MAX_BYTES // 1024} KiB" in limits["read"]
    assert f"{image_check.MAX_IMAGE_BYTES:,} bytes" in limits["read"]
    assert f"{edit.MAX_EDIT_BYTES // 2**20} MiB, {changing.MAX_PLACES:,} places" in limits["edit"]
    assert f"{changing.MAX_CHANGED_CHARACTERS // 2**20} Mi characters" in limits["edit"]
    assert f"{bash.DEFAULT_TIMEOUT_MS:,} ms" in limits["bash"]
    assert f"{bash.DEFAULT_MEMORY_LIMIT_MB} MiB" in limits["bash"]
    for name, module in (("grep", grep), ("find", find), ("ls", ls)):
        assert limits[name].startswith(f"{module.DEFAULT_LIMIT} ")
        assert f"at most {module.MAX_LIMIT:,}" in limits[name]
    assert f"{search.SEARCH_MEMORY_BYTES // 2**30} GiB" in limits["grep"]
    assert f"a search after {search.SEARCH_TIMEOUT_MS // 1000} s" in PAGE


def test_the_settings_it_names_exist() -> None:
    settings = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tools\.\w+)`", PAGE))
    assert named
    assert all(f"`{name}`" in settings for name in named)
