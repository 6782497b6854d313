"""Pictures of results, drawn with matplotlib, which the extra `plots` brings."""
