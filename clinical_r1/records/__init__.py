"""Real records in: read, check, de-identify, deduplicate, decontaminate, split. The entry point is `run.prepare`."""
