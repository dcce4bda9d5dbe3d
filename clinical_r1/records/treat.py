"""What is done to each row on its own, on all cores: PHI gate, leakage, contamination, shingles.

Workers are forked after the recognisers and the benchmarks' index are made, so they share them; rows go out and cases
come back in batches, in order, and only so many are on the way at a time.
"""

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from clinical_r1.containment import ContainmentIndex, normal_form, shingle_array, tokens
from clinical_r1.errors import UserError
from clinical_r1.privacy.config import load_key
from clinical_r1.privacy.gate import Record, open_gate
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.policies import leaks, mask
from clinical_r1.records.readers.registry import read_source
from clinical_r1.records.row import Facts, Quarantined, Reject, Row, reject_of
from clinical_r1.schema import Case

_BATCH = 32
_SHINGLE = 4
"""Words of a shingle for near-duplicates."""


class Treated(NamedTuple):
    """What became of one row of a source."""

    source: int
    result: Facts | Reject | Quarantined
    text: bytes = b""
    """A case as JSON."""
    shingles: bytes = b""
    scrubbed: Mapping[str, int] = {}
    """What the gate removed from it, by type."""
    length: int = 0
    """Tokens of a question that was too long."""


class Treatment:
    """The work on one row; made once and shared by forked workers."""

    def __init__(self, config: RecordsConfig) -> None:
        self._config, rules = config, config.contamination
        sites = {source.site for source in config.sources} | set(config.splits.test_sites)
        self._gate = open_gate(config.phi, load_key(config.phi), sites)
        entries = (entry for source in rules.benchmarks for entry in read_source(source))
        texts = [entry.fields["question"] for entry in entries if isinstance(entry, Row)]
        if rules.benchmarks and not texts:
            raise UserError(f"{rules.benchmarks[0].path}: no readable benchmark item; correct contamination.benchmarks")
        self._index = ContainmentIndex(texts, rules.ngram, rules.min_shingles) if texts else None
        self._count = token_counter(config.window.tokenizer)

    def treat(self, rows: list[Row]) -> list[Treated]:
        """Every row becomes a case, is kept back, or is rejected; one row's fault never stops the others."""
        found = []
        for row in rows:
            try:
                found.append(self._row(row))
            except Exception as error:
                found.append(Treated(row.source, reject_of(error, row.file, row.line)))
        return found

    def _row(self, row: Row) -> Treated:
        config, place = self._config, f"{row.file}:{row.line}"
        gated = self._gate.pass_through(Record(place, row.fields, row.patient_id, row.known, row.keep_id))
        if gated.doubts:
            held = Quarantined(file=row.file, line=row.line, types=sorted(set(gated.doubts)))
            return Treated(row.source, held)
        case = Case.model_validate(gated.fields)
        # Choices name the reference by design, so only open problems can leak.
        leaked = not case.options and bool(leaks(case.question, case.references))
        if leaked and config.leakage == "mask":
            case = case.model_copy(update={"question": mask(case.question, case.references, case.language)})
        if config.window.tokens and (length := self._count(case.prompt)) > config.window.tokens:
            reason = f"question: longer than the {config.window.tokens} tokens that the model's window leaves"
            return Treated(row.source, row.reject(reason, "too_long"), length=length)
        words = tokens(case.question)
        named = {"question": _hash(" ".join(words)), "problem": row.problem}
        named |= {name: getattr(case, name) for name in config.group_by}
        copied = {name: getattr(case, name) for name in ("id", "language", "specialty", "icd10", "patient", "site")}
        facts = Facts(
            file=row.file,
            line=row.line,
            source=row.source,
            **copied,
            test_only=row.fields.get("site", "") in config.splits.test_sites,
            keys=[key for key in named.items() if key[1] != ""],
            case_key=_hash("\x1f".join((" ".join(words), *map(normal_form, case.references)))),
            block=_hash(case.language + "\x1f" + normal_form(case.reference) if config.dedup.same_reference else ""),
            leak=leaked,
            contaminated=bool(self._index and self._index.highest(case.question) >= config.contamination.threshold),
        )
        shingles = shingle_array(words, _SHINGLE).tobytes() if config.dedup.near != "off" else b""
        return Treated(row.source, facts, case.model_dump_json().encode(), shingles, gated.counts)


def token_counter(folder: str) -> Callable[[str], int]:
    """Counts a text's tokens with the tokenizer.json of a folder; without one the fewest that it can well be (six Latin
    letters or two and a half Han characters a token), so that nothing is refused by mistake."""
    if not folder:
        return lambda text: int(sum(0.4 if char >= "\u3400" else 1 / 6 for char in text))
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    except Exception:
        raise UserError(f"records.window.tokenizer: {folder}: no tokenizer.json that can be read") from None
    return lambda text: len(tokenizer.encode(text).ids)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


_shared: Treatment | None = None
"""What forked workers inherit."""


def _work(rows: list[Row]) -> list[Treated]:
    assert _shared is not None
    return _shared.treat(rows)


def treated(rows: Iterable[Row], config: RecordsConfig) -> Iterator[Treated]:
    """In the order of the rows; on all cores where there is more than a handful of them."""
    global _shared
    treatment, source = Treatment(config), iter(rows)
    batches = iter(lambda: list(islice(source, _BATCH)), [])
    first = list(islice(batches, 3))
    cores = _cores() if len(first) == 3 else 1
    if cores == 1:
        yield from chain.from_iterable(map(treatment.treat, chain(first, batches)))
        return
    _shared = treatment
    try:
        with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
            waiting: deque[Future[list[Treated]]] = deque()
            for batch in chain(first, batches):
                waiting.append(pool.submit(_work, batch))
                if len(waiting) > 3 * cores:
                    yield from waiting.popleft().result()
            yield from chain.from_iterable(done.result() for done in waiting)
    finally:
        _shared = None


def _cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    cores, quota = len(os.sched_getaffinity(0)), Path("/sys/fs/cgroup/cpu.max")
    allowed, period = quota.read_text().split()[:2] if quota.is_file() else ("max", "")
    return cores if allowed == "max" else max(1, min(cores, -(-int(allowed) // int(period))))
