"""Is this answer the reference diagnosis? Rule, LLM judge, ensemble; a judgement that fails is invalid, never a
verdict."""
