"""Logs and the operational log: JSON lines without content.  Start with :mod:`nous.telemetry.log`."""
