"""``grep``: the lines that match, by path, without what .gitignore hides; ripgrep or not, the result is the same."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from nous.ports.tool import ToolContext, ToolResult
from nous.tools.arguments import InvalidArgumentsError
from nous.tools.builtin import PATH_HELP, BuiltinTool
from nous.tools.find import GLOB_HELP, check_glob
from nous.tools.regex import DialectError, translate
from nous.tools.search import SEARCH_TIMEOUT_MS, find_ripgrep, plan_search, run_search
from nous.tools.search_request import GrepQuery
from nous.tools.text import encode

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 100_000
MAX_CONTEXT: Final = 100

_DIALECT_HELP: Final = (
    "A regular expression, matched within a line: . [a-z] [^a] \\d \\w \\s \\b ^ $ (a|b) * + ? {2,3}, (?i) in front; "
    "no look-around, no backreferences."
)


class GrepArguments(Struct, frozen=True, forbid_unknown_fields=True):
    pattern: Annotated[str, Meta(min_length=1, description=_DIALECT_HELP)]
    path: Annotated[str, Meta(min_length=1, description=f"The file or directory to search. {PATH_HELP}")] = "."
    glob: (
        Annotated[
            str,
            Meta(min_length=1, max_length=4096, description=f"Which files to search, all if not given: {GLOB_HELP}"),
        ]
        | UnsetType
    ) = UNSET
    ignore_case: Annotated[bool, Meta(description="Take upper and lower case for the same.")] = False
    literal: Annotated[bool, Meta(description="Take the pattern as plain text.")] = False
    context: Annotated[int, Meta(ge=0, le=MAX_CONTEXT, description="Lines to show around each match.")] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="How many matching lines to show at most.")] = (
        DEFAULT_LIMIT
    )


class GrepTool(BuiltinTool[GrepArguments]):
    """``may_use_ripgrep=False`` searches with Python also where rg is installed: slower, with the same results."""

    tool_name = "grep"
    summary: ClassVar[str] = (
        "Search files for a pattern. Shows path:line:text, sorted by path. "
        "Binary files, what .gitignore excludes and .git are left out, links are not followed."
    )
    shape = GrepArguments

    def __init__(self, *, may_use_ripgrep: bool = True, timeout_ms: int = SEARCH_TIMEOUT_MS) -> None:
        super().__init__()
        self._may_use_ripgrep = may_use_ripgrep
        self._timeout_ms = timeout_ms

    async def execute(self, arguments: GrepArguments, context: ToolContext) -> ToolResult:
        """Search in a process of its own."""
        _check_pattern(arguments)
        glob = None if arguments.glob is UNSET else arguments.glob
        if glob is not None:
            check_glob(glob, "glob")
        query = GrepQuery(
            pattern=arguments.pattern,
            ignore_case=arguments.ignore_case,
            literal=arguments.literal,
            context=arguments.context,
            ripgrep=find_ripgrep() if self._may_use_ripgrep else None,
        )
        with await plan_search(arguments.path, context, glob=glob, limit=arguments.limit, grep=query) as search:
            return await run_search(search, context, what="matching lines", timeout_ms=self._timeout_ms)


def _check_pattern(arguments: GrepArguments) -> None:
    encode(arguments.pattern, "pattern")
    try:
        translate(arguments.pattern, "rust", ignore_case=arguments.ignore_case, literal=arguments.literal)
    except DialectError as error:
        raise InvalidArgumentsError(
            f"Invalid arguments: `pattern` cannot be used: {error}. Set `literal` to search for it as plain text."
        ) from None
