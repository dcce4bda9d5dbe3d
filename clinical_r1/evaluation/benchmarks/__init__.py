"""Benchmarks by name. A new one is one small file here: NAME, ABOUT, and `load(path) -> list[Case]`."""
