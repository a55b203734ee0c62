"""Where the command begins, with nothing imported yet."""

import gc


def main() -> int:
    """Run the command line of this process; return the exit code."""
    # Importing makes next to no garbage, and looking for it is a twentieth of a start.
    gc.disable()
    from nous.cli.main import main

    return main()
