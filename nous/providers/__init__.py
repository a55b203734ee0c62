"""Model providers: vendors' dialects, the HTTP client below them, and the scripted mock.

Start with :mod:`nous.providers.registry`, which builds a provider by name, and :mod:`nous.providers.adapter`, which
says what a dialect has to do.  A dialect is an adapter that builds requests (``chat.py``, ``responses.py``,
``anthropic.py``, ``gemini.py``) and a parser of the stream (``*_stream.py``).
"""
