"""``python -m nous`` is the command ``nous``."""

from nous.cli.start import main

if __name__ == "__main__":
    raise SystemExit(main())
