"""A look at a source before anything is run: what it is taken for, some of its cases, and what became of its rows."""

import os
import secrets
import textwrap
from collections.abc import Iterator

from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.report import account
from clinical_r1.records.run import accounts, taken_cases
from clinical_r1.schema import Case


def preview(config: RecordsConfig, cases: int = 3) -> Iterator[str]:
    """Lines to print. Nothing is written; where there is no patient key, hashes and shifts are of this look only."""
    os.environ.setdefault(config.phi.key_env, secrets.token_hex(16))
    with taken_cases(config, None, strict=False) as taken:
        report = accounts(taken)
        yield from account(report)
        for kept in taken.policies.kept[:cases]:
            yield ""
            yield from _shown(taken.case(kept.facts))
        if taken.intake.rejects:
            yield ""
            yield "first rows that were not taken:"
            yield from (f"  {reject.file}:{reject.line}: {reject.reason}" for reject in taken.intake.rejects[:5])


def _shown(case: Case) -> list[str]:
    tags = [case.language, case.specialty, case.icd10, case.sex, case.age_band, case.site, case.patient, case.recorded]
    lines = [f"{case.origin}  ({', '.join(tag for tag in tags if tag and tag != 'unknown')})"]
    lines += textwrap.wrap(case.question, 110, initial_indent="  ", subsequent_indent="  ", max_lines=12)
    lines += [f"  options: {'; '.join(case.options)}"] if case.options else []
    return [*lines, f"  -> {'; '.join(case.references)}"]
