"""The built-in tools: read, write, edit, ls, find, grep and bash.

Start with :mod:`nous.tools.registry` and :mod:`nous.tools.builtin`, which a tool derives from.  Every path goes through
:mod:`nous.tools.paths`; searches and large edits run in processes of their own.
"""
