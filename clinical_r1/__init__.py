"""The ClinicalGPT-R1 method as a library: records, traces, SFT, PPO, evaluation.

Source of the method: ClinicalGPT-R1 (arXiv 2504.09421), "the paper" in docstrings below.
The library never imports kfp, components, pipelines or serving (tests/test_architecture.py holds this).
"""

__version__ = "0.1.0"
