"""The operating system: files, processes, threads, clocks, ids.  Start with the module named after what you need."""
