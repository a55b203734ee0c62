"""Small Protocols between the floors: why capabilities need not import each other.  Pure."""
