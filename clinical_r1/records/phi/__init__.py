"""The PHI gate: recognise, shift, scrub, and keep back what is unsure. The entry point is `gate.open_gate`."""
