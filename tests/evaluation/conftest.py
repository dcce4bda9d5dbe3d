"""Fixtures of the evaluation tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from invented_run import make_cases

from clinical_r1.schema import Case


@pytest.fixture
def cases() -> list[Case]:
    """140 invented cases of seven specialties in two languages."""
    return make_cases(140)
