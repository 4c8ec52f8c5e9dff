"""Where arrays, files and the network meet: the stream of a run, and evaluation."""
