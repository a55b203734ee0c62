"""The milestone gate: ``python -m scripts.gate`` (``make milestone4-gate``)."""
