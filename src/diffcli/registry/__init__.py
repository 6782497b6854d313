"""Runs on disk: ids, records, metric log, lock, listing and trash; imports no torch."""
