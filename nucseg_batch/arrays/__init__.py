"""Arrays in, arrays out: normalisation, separation into nuclei, statistics and scores."""
