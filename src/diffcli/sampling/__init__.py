"""From noise to images: the solvers, the noise of each sample, and the archive they end in."""
