"""Benchmarks, runner, statistics, audit, chain analysis, promotion gate and the HTML report."""
