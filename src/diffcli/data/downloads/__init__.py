"""Published files fetched over HTTP: resumed after a cut, verified, never half taken for whole."""
