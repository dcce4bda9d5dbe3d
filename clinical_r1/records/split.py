"""Four disjoint splits: reproducible by seed, stratified, never cutting through a group; verified before writing.

Groups are connected components over shared keys (patient, site, one problem in two languages, identical question).
They are dealt one by one, large ones first, to the split that lacks most of their strata; the order among equals comes
from a hash of seed and group, so neither file order nor timing matters.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from clinical_r1.errors import UserError
from clinical_r1.records.config import SplitConfig
from clinical_r1.schema import SPLITS

UNUSED = "unused"


@dataclass(frozen=True)
class Item:
    """What splitting needs to know of a case."""

    id: str
    stratum: tuple[str, ...]
    keys: tuple[Hashable, ...]
    """Cases that share any key stay together."""
    test_only: bool = False


def groups_of(items: Sequence[Item]) -> list[list[int]]:
    """Connected components of the items over their shared keys, as lists of indices."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[Hashable, int] = {}
    for i, item in enumerate(items):
        for key in item.keys:
            parent[root(i)] = root(seen.setdefault(key, i))
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(len(items)):
        found[root(i)].append(i)
    return list(found.values())


def sizes_for(total: int, config: SplitConfig) -> tuple[dict[str, int], str]:
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


def assign(items: Sequence[Item], config: SplitConfig, seed: int) -> tuple[dict[str, list[int]], str]:
    """Indices by split (`unused` among them) and the sizing rule; UserError where a wanted split would stay empty."""
    sizes, rule = sizes_for(len(items), config)
    strata = Counter(item.stratum for item in items)
    names = [name for name in (*SPLITS, UNUSED) if sizes[name]]
    lacking = {name: {s: sizes[name] * n / len(items) for s, n in strata.items()} for name in names}
    room = {name: sizes[name] for name in names}
    result: dict[str, list[int]] = {name: [] for name in (*SPLITS, UNUSED)}

    def order(group: list[int]) -> tuple[int, str]:
        first = min(items[i].id for i in group)
        return -len(group), hashlib.sha256(f"{seed}\x1f{first}".encode()).hexdigest()

    groups = sorted(groups_of(items), key=order)
    for number, group in enumerate(groups):
        share = Counter(items[i].stratum for i in group)
        if any(items[i].test_only for i in group):
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
    check_disjoint(items, result)
    empty = [name for name in SPLITS if (sizes[name] or config.fractions[name]) and not result[name]]
    if empty:
        raise UserError(
            f"splits: {len(items)} cases in {len(groups_of(items))} groups (one patient's or site's cases stay "
            f"together) leave {', '.join(empty)} empty; add cases or sites, or set records.group_by to fewer keys, "
            "such as [patient]"
        )
    return {name: sorted(found) for name, found in result.items()}, rule


def check_disjoint(items: Sequence[Item], result: dict[str, list[int]]) -> None:
    """Fail closed: every key in one split only, every case in exactly one. A breach is our bug, not the user's."""
    home: dict[Hashable, str] = {}
    for name, found in result.items():
        for i in found:
            for key in items[i].keys:
                if home.setdefault(key, name) != name:
                    raise RuntimeError("splits: a group lies in two splits; refusing to write them")
    if sorted(i for found in result.values() for i in found) != list(range(len(items))):
        raise RuntimeError("splits: cases were lost or doubled; refusing to write them")
