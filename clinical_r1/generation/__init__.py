"""Text from a local checkpoint: own static-KV loop, HF fallback, vLLM client; used by training, evaluation, serving."""
