"""Loops over pixels, compiled by Numba. Import these files where they are called: `--help` and planning go without."""
