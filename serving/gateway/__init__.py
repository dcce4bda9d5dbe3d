"""The gateway in front of an OpenAI-compatible model server: splits thinking from answer, measures, guards."""
