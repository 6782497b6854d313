"""What a person sees: results on stdout, everything else on stderr."""
