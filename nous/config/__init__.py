"""Settings: files, environment and flags, merged with the place of each value.

Start with :mod:`nous.config.settings` (what there is) and :mod:`nous.config.layers` (how layers are merged).
"""
