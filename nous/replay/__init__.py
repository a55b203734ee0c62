"""Replay: recorded traces as regression tests, in the engine alone or through a whole daemon.

Start with :mod:`nous.replay.engine_mode` and :mod:`nous.replay.daemon_mode`.  Exports, their redaction and the commands
of ``nous trace`` are here too.
"""
