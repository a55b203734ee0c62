"""Extensions: other people's programs, each in a process of its own, with deadlines and limits.

Nothing here is imported by a daemon that has no extension.
"""
