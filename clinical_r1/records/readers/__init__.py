"""One module a source format; `registry.read_source` chooses by name or by looking at the file."""
