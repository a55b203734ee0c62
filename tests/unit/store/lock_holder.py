"""A process that takes a lock, says so, and holds it until its stdin ends.  Run by the tests of the store.

usage: lock_holder.py LOCK_FILE
"""

from __future__ import annotations

import os
import sys

from nous.store.disk import Disk
from nous.store.locks import try_lock

if try_lock(Disk(), sys.argv[1]) is None:
    sys.exit(1)
os.write(1, b"held\n")
os.read(0, 1)
