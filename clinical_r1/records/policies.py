"""What well-formed, gated cases are dropped for: no group, duplicate, near-duplicate, contamination, leakage.

Decided on facts, in this order; a case's text is not needed any more.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.dedup import Boilerplate, near_duplicates
from clinical_r1.records.row import Kind, Reject
from clinical_r1.records.spool import Facts, Spool


@dataclass
class Kept:
    """A case with what must not part from it."""

    facts: Facts
    keys: tuple[Hashable, ...] = ()


@dataclass
class Policies:
    """Outcome of all policies."""

    kept: list[Kept] = field(default_factory=list)
    rejects: list[tuple[int, Reject]] = field(default_factory=list)
    """With the number of the source."""
    leaks: int = 0


def apply_policies(cases: list[Facts], spool: Spool, common: Boilerplate, config: RecordsConfig) -> Policies:
    """Run all policies over the gated cases."""
    result = Policies()
    cases = _grouped(cases, config, result)
    cases = _deduplicated(cases, config, result)
    cases, linked = _near(cases, spool, common, config, result)
    for facts in cases:
        if facts.contaminated:
            _reject(result, facts, "contaminated", "contains an item of a benchmark")
            continue
        result.leaks += facts.leak
        if facts.leak and config.leakage == "drop":
            _reject(result, facts, "leak", "the question names the reference")
            continue
        keys: list[Hashable] = [("question", facts.question_key)]
        keys += [("problem", facts.problem)] if facts.problem else []
        keys += [("near", link) for link in linked.get(id(facts), ())]
        result.kept.append(Kept(facts, tuple(keys)))
    _unique_ids(result.kept)
    return result


def _reject(result: Policies, facts: Facts, kind: Kind, reason: str) -> None:
    result.rejects.append((facts.source, Reject(file=facts.file, line=facts.line, kind=kind, reason=reason)))


def _grouped(cases: list[Facts], config: RecordsConfig, result: Policies) -> list[Facts]:
    """A case without a patient, in a source that knows patients, cannot be kept apart from its siblings: dropped.

    One without a site stays: it is grouped by its patient, and shares no stated site with any other.
    """
    if "patient" not in config.group_by:
        return cases
    sources = {facts.source for facts in cases if facts.patient}
    kept = []
    for facts in cases:
        if facts.source in sources and not facts.patient:
            _reject(result, facts, "ungrouped", "patient: empty in a source whose other rows have one")
        else:
            kept.append(facts)
    return kept


def _deduplicated(cases: list[Facts], config: RecordsConfig, result: Policies) -> list[Facts]:
    if not config.dedup.exact:
        return cases
    seen: set[int] = set()
    kept = []
    for facts in cases:
        if facts.case_key in seen:
            _reject(result, facts, "duplicate", "same question and reference as an earlier row")
        else:
            seen.add(facts.case_key)
            kept.append(facts)
    return kept


def _near(
    cases: list[Facts], spool: Spool, common: Boilerplate, config: RecordsConfig, result: Policies
) -> tuple[list[Facts], dict[int, list[Hashable]]]:
    dedup = config.dedup
    if dedup.near == "off":
        return cases, {}
    blocks = [facts.block for facts in cases]
    pairs = near_duplicates(lambda i: spool.shingles(cases[i]), blocks, common, dedup.threshold, dedup.min_shingles)
    if dedup.near == "group":
        linked: dict[int, list[Hashable]] = {}
        for later, earlier in pairs:
            for index in (later, earlier):
                linked.setdefault(id(cases[index]), []).append(earlier)
        return cases, linked
    later_ones = {later for later, _ in pairs}
    for index in sorted(later_ones):
        _reject(result, cases[index], "near_duplicate", "near-duplicate of an earlier row")
    return [facts for index, facts in enumerate(cases) if index not in later_ones], {}


def _unique_ids(kept: list[Kept]) -> None:
    """Ids must name one case; a source that repeats them gets its repeats numbered."""
    times: Counter[str] = Counter()
    for entry in kept:
        times[entry.facts.id] += 1
        if times[entry.facts.id] > 1:
            entry.facts.id, entry.facts.renamed = f"{entry.facts.id}-{times[entry.facts.id]}", True
