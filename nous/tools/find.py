"""``find``: the paths below a directory that match a glob, sorted, without what .gitignore hides."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from nous.ports.tool import ToolContext, ToolResult
from nous.tools.arguments import InvalidArgumentsError
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.globs import Glob, GlobError
from nous.tools.search import plan_search, run_search
from nous.tools.text import encode

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 100_000

GLOB_HELP: Final = (
    "* ? [...] within a name, ** over any number of directories, {a,b} for either. "
    "Without a slash it is about the name, with one about the path below the directory."
)


class FindArguments(Struct, frozen=True, forbid_unknown_fields=True):
    pattern: Annotated[str, Meta(min_length=1, max_length=4096, description=f"A glob: {GLOB_HELP}")]
    path: Annotated[str, Meta(min_length=1, description=f"The directory to search. {PATH_HELP}")] = "."
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="How many paths to list at most.")] = DEFAULT_LIMIT


class FindTool(BuiltinTool[FindArguments]):
    """The tool ``find``."""

    tool_name = "find"
    summary: ClassVar[str] = (
        "Find files and directories by a glob, sorted by path, hidden ones too; directories end with /. "
        "What .gitignore excludes and .git are left out, links are not followed."
    )
    shape = FindArguments

    async def execute(self, arguments: FindArguments, context: ToolContext) -> ToolResult:
        """Search in a process of its own."""
        check_glob(arguments.pattern, "pattern")
        limit, glob = arguments.limit, arguments.pattern
        with await plan_search(arguments.path, context, glob=glob, limit=limit, grep=None) as search:
            return await run_search(search, context, what="paths")


def check_glob(pattern: str, field: str) -> None:
    """Make sure that the search will understand the glob.

    Raises:
        InvalidArgumentsError: it will not.
    """
    encode(pattern, field)
    try:
        Glob(pattern)
    except GlobError as error:
        raise InvalidArgumentsError(f"Invalid arguments: `{field}`: {error}.") from None
