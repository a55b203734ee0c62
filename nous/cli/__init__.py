"""The command line: one module for each command.  Start with :mod:`nous.cli.main`, which finds them."""
