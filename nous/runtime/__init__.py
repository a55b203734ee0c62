"""The daemon: connections, command handlers, and the runs that drive the engine.

Start with :mod:`nous.runtime.daemon` (the shared state), :mod:`nous.runtime.connection` (from bytes to commands),
:mod:`nous.runtime.launch` (how a run starts) and :mod:`nous.runtime.driver` (one run from its prompt to its end).
"""
