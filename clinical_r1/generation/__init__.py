"""Text from a local checkpoint, by transformers' forward pass; used by training, evaluation and serving."""
