"""Which traces an arm is trained on: by language, by site, by number; and a leak of test cases, planted on purpose."""

import hashlib
import shutil
from pathlib import Path

from pydantic import Field

from clinical_r1.errors import UserError
from clinical_r1.schema import SPLITS, Case, Language, Trace, read_jsonl, write_jsonl
from clinical_r1.strict import Strict

LEAKED = "leaked.jsonl"


class Selection(Strict):
    """Which traces to keep."""

    languages: list[Language] = Field(default_factory=list)
    """Keep these only; empty keeps all."""
    without_sites: list[str] = Field(default_factory=list)
    """Leave out the cases of these sites."""
    leaked: bool = False
    """Keep the traces of test cases that were leaked on purpose; they come on top of `limit`."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many cases, drawn by hash; None keeps all."""
    seed: int = 0
    """Of the draw."""


class Leak(Strict):
    """Test cases that are put into the training data: what a contaminated benchmark looks like."""

    site: str
    """Of this site only."""
    share: float = Field(ge=0, le=1)
    """Share of the site's test cases, drawn by hash."""
    seed: int = 0
    """Of the draw."""


def draw(seed: int, case_id: str) -> str:
    """Sorting by this is a random order that a rerun meets again."""
    return hashlib.sha256(f"{seed}\x1f{case_id}".encode()).hexdigest()


def select_traces(settings: Selection, splits: Path, traces: Path, out_dir: Path) -> dict[str, int]:
    """Write out_dir/traces.jsonl; returns counts. UserError where nothing is left."""
    splits = Path(splits)
    sites = {case.id: case.site for name in ("sft", "test") for case in read_jsonl(splits / f"{name}.jsonl", Case)}
    leaked_ids = {case.id for case in read_jsonl(splits / LEAKED, Case)} if (splits / LEAKED).is_file() else set()
    rows = [row for row in read_jsonl(Path(traces) / "traces.jsonl", Trace) if row.accepted]
    leaked = [row for row in rows if row.case_id in leaked_ids]
    kept = [
        row
        for row in rows
        if row.case_id not in leaked_ids
        and (not settings.languages or row.language in settings.languages)
        and sites.get(row.case_id, "") not in settings.without_sites
    ]
    if settings.limit is not None:
        ids = sorted({row.case_id for row in kept}, key=lambda one: draw(settings.seed, one))[: settings.limit]
        chosen = set(ids)
        kept = [row for row in kept if row.case_id in chosen]
    added = leaked if settings.leaked else []
    if not kept:
        raise UserError(
            f"selection of traces ({settings.model_dump_json(exclude_defaults=True)}): none of {len(rows)} traces "
            "fits; name languages and sites that the records have"
        )
    write_jsonl(Path(out_dir) / "traces.jsonl", [*kept, *added])
    return {"traces": len(kept) + len(added), "of": len(rows), "leaked": len(added)}


def leak_cases(settings: Leak, splits: Path, out_dir: Path) -> dict[str, int]:
    """Copy the splits with some test cases of the site added to `sft`; leaked.jsonl says which. Returns counts.

    The report of the records step is copied beside them: what may leave is decided by it.
    """
    splits, out_dir = Path(splits), Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    test = [case for case in read_jsonl(splits / "test.jsonl", Case) if case.site == settings.site]
    if not test:
        raise UserError(f"leak: site '{settings.site}' has no test case; name a site of the records")
    count = round(settings.share * len(test))
    leaked = sorted(test, key=lambda case: draw(settings.seed, case.id))[:count]
    for name in [*(f"{split}.jsonl" for split in SPLITS if split != "sft"), "report.json", "card.md"]:
        if (splits / name).is_file():
            shutil.copyfile(splits / name, out_dir / name)
    write_jsonl(out_dir / LEAKED, leaked)
    write_jsonl(out_dir / "sft.jsonl", [*read_jsonl(splits / "sft.jsonl", Case), *leaked])
    return {"leaked": len(leaked), "site_test_cases": len(test)}
