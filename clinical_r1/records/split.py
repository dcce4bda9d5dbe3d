"""Four disjoint splits: reproducible by seed, stratified, never cutting through a group; verified before writing.

Groups are connected components over shared keys (patient, site, one problem in two languages, identical question).
They are dealt one by one, large ones first, to the split that lacks most of their strata; the order among equals comes
from a hash of seed and group, so neither file order nor timing matters.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from clinical_r1.errors import UserError
from clinical_r1.records.config import RecordsConfig, SplitConfig
from clinical_r1.records.row import Facts
from clinical_r1.schema import SPLITS

UNUSED = "unused"


def _groups(cases: Sequence[Facts]) -> list[list[int]]:
    """Connected components of the cases over their shared keys, as lists of indices."""
    parent = list(range(len(cases)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[Hashable, int] = {}
    for i, facts in enumerate(cases):
        for key in facts.keys:
            parent[root(i)] = root(seen.setdefault(key, i))
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(len(cases)):
        found[root(i)].append(i)
    return list(found.values())


def _sizes(total: int, config: SplitConfig) -> tuple[dict[str, int], str]:
    """Target sizes that sum to `total` (with the surplus as `unused`), and which rule gave them."""
    wanted = sum(config.counts.values())
    if config.counts and wanted <= total:
        return {**config.counts, UNUSED: total - wanted}, "counts"
    if config.counts and config.when_short == "fail":
        raise UserError(f"splits.counts ask for {wanted} cases but only {total} are left; lower them or add cases")
    exact = {name: config.fractions[name] * total for name in SPLITS}
    sizes = {name: int(share) for name, share in exact.items()}
    for name in sorted(SPLITS, key=lambda n: sizes[n] - exact[n])[: total - sum(sizes.values())]:
        sizes[name] += 1
    return {**sizes, UNUSED: 0}, "fractions"


def assign(cases: Sequence[Facts], config: RecordsConfig) -> tuple[dict[str, list[Facts]], str, int]:
    """Cases by split (`unused` among them), the sizing rule and the number of groups; UserError where a wanted split
    would stay empty."""
    sizes, rule = _sizes(len(cases), config.splits)
    stratum = [tuple(getattr(facts, name) for name in config.stratify_by) for facts in cases]
    names = [name for name in (*SPLITS, UNUSED) if sizes[name]]
    lacking = {name: {s: sizes[name] * n / len(cases) for s, n in Counter(stratum).items()} for name in names}
    room = {name: sizes[name] for name in names}
    result: dict[str, list[int]] = {name: [] for name in (*SPLITS, UNUSED)}

    def order(group: list[int]) -> tuple[int, str]:
        first = min(cases[i].id for i in group)
        return -len(group), hashlib.sha256(f"{config.seed}\x1f{first}".encode()).hexdigest()

    groups = sorted(_groups(cases), key=order)
    for number, group in enumerate(groups):
        share = Counter(stratum[i] for i in group)
        if any(cases[i].test_only for i in group):
            chosen = "test"
        else:
            fitting = [name for name in names if room[name] >= len(group)] or [max(names, key=lambda n: room[n])]
            bare = [name for name in names if name != UNUSED and not result[name]]
            if len(groups) - number <= len(bare):  # few large groups, such as sites: each of the last fills a split
                fitting = bare
            need = {n: sum(min(lacking[n][s], k) for s, k in share.items()) for n in fitting}
            chosen = max(fitting, key=lambda n: (round(need[n], 9), room[n] / sizes[n], -names.index(n)))
        result[chosen].extend(group)
        if chosen in room:
            room[chosen] -= len(group)
            for s, k in share.items():
                lacking[chosen][s] -= k
    empty = [name for name in SPLITS if (sizes[name] or config.splits.fractions[name]) and not result[name]]
    if empty:
        raise UserError(
            f"splits: {len(cases)} cases in {len(groups)} groups (one patient's or site's cases stay "
            f"together) leave {', '.join(empty)} empty; add cases or sites, or set records.group_by to fewer keys, "
            "such as [patient]"
        )
    if sorted(i for found in result.values() for i in found) != list(range(len(cases))):
        raise RuntimeError("splits: cases were lost or doubled; refusing to write them")
    splits = {name: [cases[i] for i in sorted(found)] for name, found in result.items()}
    home: dict[Hashable, str] = {}  # fail closed: a key in two splits is our bug, not the user's
    for name, found in splits.items():
        if any(home.setdefault(key, name) != name for facts in found for key in facts.keys):
            raise RuntimeError("splits: a group lies in two splits; refusing to write them")
    return splits, rule, len(groups)
