"""Frozen records that commands return and consoles draw; imports no torch."""
