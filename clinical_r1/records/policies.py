"""What well-formed, gated cases are dropped for: no group, duplicate, near-duplicate, contamination, leakage."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from clinical_r1.containment import ContainmentIndex, normal_form
from clinical_r1.errors import UserError
from clinical_r1.records import leakage
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.dedup import near_duplicates
from clinical_r1.records.gate import GateResult, Passed
from clinical_r1.records.readers.registry import read_source
from clinical_r1.records.row import Kind, Reject, Row
from clinical_r1.schema import Case


@dataclass
class Kept:
    """A case with what splitting must know beyond its fields."""

    case: Case
    keys: tuple[Hashable, ...] = ()
    site: str = ""
    """The site's name in the source, before hashing."""


@dataclass
class Policies:
    """Outcome of all policies."""

    kept: list[Kept] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    leaks: int = 0

    @property
    def dropped(self) -> dict[str, int]:
        """Counts by kind of reason."""
        return dict(Counter(reject.kind for reject in self.rejects))


def apply_policies(gated: GateResult, config: RecordsConfig) -> Policies:
    """Run all policies over the gated cases, in the order of the module's docstring."""
    result = Policies()
    passed = _grouped(gated.passed, config, result)
    passed = _deduplicated(passed, config, result)
    passed, linked = _near(passed, config, result)
    passed = _uncontaminated(passed, config, result)
    passed = _unleaked(passed, config, result)
    for entry in passed:
        same = ("question", normal_form(entry.case.question))
        keys: list[Hashable] = [("problem", entry.row.problem)] if entry.row.problem else []
        keys += [("near", link) for link in linked.get(id(entry), ())]
        result.kept.append(Kept(case=entry.case, keys=(same, *keys), site=entry.row.fields.get("site", "")))
    _unique_ids(result.kept)
    return result


def _reject(result: Policies, row: Row, kind: Kind, reason: str) -> None:
    result.rejects.append(Reject(file=row.file, line=row.line, kind=kind, reason=reason))


def _grouped(passed: list[Passed], config: RecordsConfig, result: Policies) -> list[Passed]:
    """A case without a patient, in a source that knows patients, cannot be kept apart from its siblings: dropped.

    One without a site stays: it is grouped by its patient, and shares no stated site with any other.
    """
    if "patient" not in config.group_by:
        return passed
    files = {entry.row.file for entry in passed if entry.case.patient}
    kept = []
    for entry in passed:
        if entry.row.file in files and not entry.case.patient:
            _reject(result, entry.row, "ungrouped", "patient: empty in a source whose other rows have one")
        else:
            kept.append(entry)
    return kept


def _deduplicated(passed: list[Passed], config: RecordsConfig, result: Policies) -> list[Passed]:
    if not config.dedup.exact:
        return passed
    seen: set[tuple[str, str]] = set()
    kept = []
    for entry in passed:
        key = (normal_form(entry.case.question), normal_form(entry.case.reference))
        if key in seen:
            _reject(result, entry.row, "duplicate", "same question and reference as an earlier row")
        else:
            seen.add(key)
            kept.append(entry)
    return kept


def _near(
    passed: list[Passed], config: RecordsConfig, result: Policies
) -> tuple[list[Passed], dict[int, list[Hashable]]]:
    dedup = config.dedup
    if dedup.near == "off":
        return passed, {}
    blocks = [(e.case.language, normal_form(e.case.reference) if dedup.same_reference else "") for e in passed]
    pairs = near_duplicates([e.case.question for e in passed], blocks, dedup.threshold, dedup.min_shingles)
    if dedup.near == "group":
        linked: dict[int, list[Hashable]] = {}
        for later, earlier in pairs:
            for index in (later, earlier):
                linked.setdefault(id(passed[index]), []).append(earlier)
        return passed, linked
    later_ones = {later for later, _ in pairs}
    for index in sorted(later_ones):
        _reject(result, passed[index].row, "near_duplicate", "near-duplicate of an earlier row")
    return [entry for index, entry in enumerate(passed) if index not in later_ones], {}


def _uncontaminated(passed: list[Passed], config: RecordsConfig, result: Policies) -> list[Passed]:
    rules = config.contamination
    if not rules.benchmarks:
        return passed
    texts = [entry.fields["question"] for b in rules.benchmarks for entry in read_source(b) if isinstance(entry, Row)]
    if not texts:
        raise UserError(f"{rules.benchmarks[0].path}: no readable benchmark item; correct contamination.benchmarks")
    index = ContainmentIndex(texts, rules.ngram, rules.min_shingles)
    kept = []
    for entry in passed:
        if index.highest(entry.case.question) >= rules.threshold:
            _reject(result, entry.row, "contaminated", "contains an item of a benchmark")
        else:
            kept.append(entry)
    return kept


def _unleaked(passed: list[Passed], config: RecordsConfig, result: Policies) -> list[Passed]:
    kept = []
    for entry in passed:
        case = entry.case
        # Choices name the reference by design, so only open problems can leak.
        if not case.options and leakage.leaks(case.question, case.reference):
            result.leaks += 1
            if config.leakage == "drop":
                _reject(result, entry.row, "leak", "the question names the reference")
                continue
            if config.leakage == "mask":
                entry.case = case.model_copy(
                    update={"question": leakage.mask(case.question, case.reference, case.language)}
                )
        kept.append(entry)
    return kept


def _unique_ids(kept: list[Kept]) -> None:
    """Ids must name one case; a source that repeats them gets its repeats numbered."""
    times: Counter[str] = Counter()
    for entry in kept:
        times[entry.case.id] += 1
        if times[entry.case.id] > 1:
            entry.case = entry.case.model_copy(update={"id": f"{entry.case.id}-{times[entry.case.id]}"})
