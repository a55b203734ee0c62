"""What is kept on disk: sessions, traces, usage, leases.

Start with :mod:`nous.store.sessions` (sessions, entries and branches) and :mod:`nous.store.trace_file` (what a run
writes).  Every call to the disk goes through :mod:`nous.store.disk`, where tests let it fail.
"""
