"""Async client for any OpenAI-compatible endpoint: limits, retries, journal, cost."""
