"""The configuration of a run: typed sections, strict decoding, overrides and presets; imports no torch."""
