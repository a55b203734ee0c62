"""The wire protocol, version 1: commands, answers, events, messages, and the codec that reads and writes their lines.

Start with :mod:`nous.protocol.commands` and :mod:`nous.protocol.events`.  Pure: no I/O, no clock.  The published schema
in ``protocol/v1`` is made from these types (:mod:`nous.protocol.schema`).
"""
