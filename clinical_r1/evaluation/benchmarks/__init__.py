"""Benchmarks by name.

A new one is one small file here: NAME, ABOUT, FILES (usual names of its files), `looks_like(row)` (is this its first
row?) and `load(path) -> list[Case]`.
"""
