"""One use case per file: typed arguments in, a frozen record out; nothing is printed here."""
