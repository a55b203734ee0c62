"""JSON Schemas that others wrote: output schemas of prompts and argument schemas of extensions' tools.

A foreign schema, and every pattern in it, is evaluated in a worker process that is bounded in time and memory and can
be killed.  Start with :class:`nous.schemas.checker.SchemaChecker`; :mod:`nous.schemas.evaluation` is what the worker
runs.  No other package imports the schema library.
"""
