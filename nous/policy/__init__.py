"""What may run: the evaluator of policies, pure.  Empty until it is built; today's rules are in the settings."""
