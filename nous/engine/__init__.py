"""The pure heart: one :class:`~nous.engine.machine.RunMachine` per run.

It decides everything (what comes next, what is skipped, when a run ends) and does nothing: no clock, no ids, no
I/O.  Whatever is not deterministic enters as a stamped input; the same inputs give the same bytes out.
"""
