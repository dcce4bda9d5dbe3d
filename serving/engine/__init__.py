"""The model server for a CPU: laptops and tests. Production uses vLLM; the gateway cannot tell them apart."""
