"""What carries the wire: stdin and stdout, Unix sockets, memory; and the server that accepts connections.

Start with :mod:`nous.transport.server`.  How the process ends is decided in :mod:`nous.transport.ending`.
"""
