"""The statistics and the report of each experiment: predictions and traces in, one answer with its interval out."""
