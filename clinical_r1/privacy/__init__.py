"""What must stay inside: the PHI gate (`gate.open_gate`), patients as keyed hashes, and what may leave (`crossing`)."""
