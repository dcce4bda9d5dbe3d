"""Supervised fine-tuning with TRL under DeepSpeed (paper section 2.2.1)."""
