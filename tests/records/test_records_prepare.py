"""The records step end to end: splits, groups, rejects, and what a user reads when the input is wrong."""

import json
from collections import Counter
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source, SplitConfig
from clinical_r1.records.run import prepare
from clinical_r1.schema import SPLITS, Case, read_jsonl

OFF = PhiConfig(policy="off", off_because="synthetic")
CODES = ("J18.9", "I21.9", "G43.9", "K80.2")
SHARED = Path(__file__).parents[2] / "../shared/data"


def rows(count: int, patients: int = 10**6, sites: int = 5) -> list[dict]:
    return [
        {
            "language": "en",
            "question": f"Finding number {i}, sign {i * 7}, test {i * 13}. What is it?",
            "reference": f"disease {'abcd'[i % 4]}x",
            "icd10": CODES[i % 4],
            "patient": f"MRN{i % patients}",
            "site": f"site{i % sites}",
        }
        for i in range(count)
    ]


def write(path: Path, lines: list) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def config(path: str, **fields) -> RecordsConfig:
    return RecordsConfig(sources=[Source(path=path)], phi=fields.pop("phi", OFF), **fields)


def splits_of(folder: Path) -> dict[str, list[Case]]:
    return {name: read_jsonl(folder / f"{name}.jsonl", Case) for name in SPLITS}


def overlap(splits: dict[str, list[Case]], key: str) -> int:
    """How many non-empty values of a case field (`patient`, `site`, `id`) occur in more than one split."""
    homes: Counter[str] = Counter()
    for cases in splits.values():
        homes.update({getattr(case, key) for case in cases} - {""})
    return sum(times > 1 for times in homes.values())


def test_exact_counts_are_met_and_stratified(tmp_path):
    wanted = {"sft": 100, "rl": 40, "validation": 20, "test": 40}
    source = write(tmp_path / "cases.jsonl", rows(240, sites=240))
    report = prepare(config(source, splits=SplitConfig(counts=wanted)), tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    assert {name: len(cases) for name, cases in splits.items()} == wanted == report.splits
    assert (report.unused, report.split_rule, report.group_overlap) == (40, "counts", 0)
    for name, cases in splits.items():
        for specialty in ("respiratory", "cardiology", "neurology", "gastroenterology"):
            assert sum(case.specialty == specialty for case in cases) == wanted[name] / 4
    assert overlap(splits, "id") == 0


def test_too_few_cases_fall_back_to_fractions_or_fail(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(50, sites=50))
    wanted = {"sft": 100, "rl": 40, "validation": 20, "test": 40}
    report = prepare(config(source, splits=SplitConfig(counts=wanted)), tmp_path / "out")
    assert report.split_rule == "fractions" and report.splits == {"sft": 25, "rl": 10, "validation": 5, "test": 10}
    with pytest.raises(UserError, match="200 cases but only 50"):
        prepare(config(source, splits=SplitConfig(counts=wanted, when_short="fail")), tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_same_seed_same_files_whatever_the_row_order(tmp_path):
    lines = rows(120)
    first = prepare(config(write(tmp_path / "a.jsonl", lines), seed=3), tmp_path / "one")
    again = prepare(config(write(tmp_path / "a.jsonl", lines), seed=3), tmp_path / "two")
    other = prepare(config(write(tmp_path / "a.jsonl", lines), seed=4), tmp_path / "three")
    assert first == again and first.hashes != other.hashes
    prepare(config(write(tmp_path / "a.jsonl", lines[::-1]), seed=3), tmp_path / "four")
    for name in SPLITS:
        ids = [sorted(case.id for case in splits_of(tmp_path / folder)[name]) for folder in ("one", "four")]
        assert ids[0] == ids[1]


@pytest.mark.parametrize("group_by", [["patient"], ["site"], ["patient", "site"]])
def test_groups_never_part(tmp_path, group_by):
    source = write(tmp_path / "cases.jsonl", rows(400, patients=60, sites=12))
    report = prepare(config(source, group_by=group_by), tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    assert all(overlap(splits, key) == 0 for key in group_by)
    assert sum(report.splits.values()) == 400 and all(report.splits.values())


def test_patients_and_sites_are_kept_whole_by_default_and_five_sites_fill_four_splits(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(200, patients=50, sites=5))
    report = prepare(config(source), tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    assert report.group_by == ["patient", "site"] and all(report.splits.values())
    assert overlap(splits, "patient") == overlap(splits, "site") == 0


def test_a_row_without_a_site_is_grouped_by_its_patient(tmp_path):
    lines = rows(200, sites=8)
    for line in lines[::3]:
        del line["site"]
    report = prepare(config(write(tmp_path / "cases.jsonl", lines)), tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    assert report.cases == 200 and report.without_site == 67 and not report.dropped
    assert overlap(splits, "patient") == overlap(splits, "site") == 0


def test_one_site_cannot_fill_four_splits(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(100, sites=1))
    with pytest.raises(UserError, match=r"leave .* empty; .* set records.group_by to fewer keys"):
        prepare(config(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_held_out_sites_lie_in_test_only(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(200, sites=5))
    prepare(config(source, splits=SplitConfig(test_sites=["site3"])), tmp_path / "out")
    splits = splits_of(tmp_path / "out")
    assert {case.site for name in ("sft", "rl", "validation") for case in splits[name]}.isdisjoint({"site3"})
    assert sum(case.site == "site3" for case in splits["test"]) == 40


def test_patients_are_hashed_and_a_hash_is_kept(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(40))
    prepare(config(source), tmp_path / "out")
    cases = splits_of(tmp_path / "out")
    assert all(case.patient.startswith("p-") for found in cases.values() for case in found)
    again = [case.model_dump() for found in cases.values() for case in found]
    prepare(config(write(tmp_path / "again.jsonl", again)), tmp_path / "out2")
    patients = [{c.patient for f in splits_of(tmp_path / o).values() for c in f} for o in ("out", "out2")]
    assert patients[0] == patients[1]


def test_bad_rows_are_kept_with_place_and_reason(tmp_path):
    lines = [*rows(60), "{not json", {"question": "no reference"}, "[1]"]
    report = prepare(config(write(tmp_path / "cases.jsonl", lines), max_reject_rate=0.1), tmp_path / "out")
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert report.malformed == 3 and [reject["line"] for reject in rejects] == [61, 62, 63]
    assert rejects[1]["reason"].startswith("reference:") and all(reject["file"] for reject in rejects)


def test_too_many_bad_rows_fail_in_one_sentence(tmp_path):
    lines = [*rows(60), *["{broken"] * 10]
    with pytest.raises(UserError, match=r"cases.jsonl:61: malformed JSON.*10 rows \(14%\).*max_reject_rate 5%"):
        prepare(config(write(tmp_path / "cases.jsonl", lines)), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rejects.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, "no such file"),
        ("empty.jsonl", "", "empty"),
        ("blank.jsonl", "\n\n", "holds no"),
        ("list.json", "[]", "holds no cases"),
        ("cut.json", '[{"question": "a",\n "reference"', ":2: malformed JSON"),
        ("other.json", '[{"text": "a"}]', "unknown format"),
    ],
)
def test_wrong_files_are_user_errors(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        prepare(config(str(tmp_path / name)), tmp_path / "out")
    assert name in str(caught.value) and not (tmp_path / "out").exists()


def test_unknown_format_names_the_known_ones(tmp_path):
    source = Source(path=write(tmp_path / "cases.jsonl", rows(5)), format="xml")
    with pytest.raises(UserError, match="unknown format 'xml'; use one of auto, huatuo"):
        prepare(RecordsConfig(sources=[source], phi=OFF), tmp_path / "out")


def test_limit_is_seeded_or_first(tmp_path):
    source = write(tmp_path / "cases.jsonl", rows(100))
    first = prepare(config(source, limit=40, limit_by="first"), tmp_path / "a")
    questions = {case.question for found in splits_of(tmp_path / "a").values() for case in found}
    assert (
        first.cases == 40
        and first.read == 40
        and first.limited == 0
        and questions == {row["question"] for row in rows(40)}
    )
    assert prepare(config(source, limit=40), tmp_path / "b").limited == 60
    assert {c.question for f in splits_of(tmp_path / "b").values() for c in f} != questions


def test_a_seeded_limit_looks_at_what_it_may_take(tmp_path):
    lines = [json.dumps(row) for row in rows(3000)]
    lines[1::2] = ["{half a line"] * 1500
    (tmp_path / "cases.jsonl").write_text("\n".join(lines))
    report = prepare(config(str(tmp_path / "cases.jsonl"), limit=20, max_reject_rate=0.9), tmp_path / "out")
    assert report.cases == 20 and report.read == 3000
    assert 0 < report.malformed < 300  # of 1500: the others were passed over
    assert 0.3 < report.reject_rate < 0.7  # of those that were looked at
    assert report.malformed + report.limited + report.cases == 3000


def test_off_must_be_stated():
    with pytest.raises(ValueError, match="off_because"):
        PhiConfig(policy="off")


@pytest.mark.parametrize(
    ("name", "limit", "language"),
    [("DxBench_en.json", 300, "en"), ("DxBench_zh.json", 300, "zh"), ("huatuogpt_o1_demo_198.json", None, "en")],
)
def test_public_sets_read_whole(tmp_path, name, limit, language):
    if not (SHARED / name).is_file():
        pytest.skip(f"{name} is not beside the project (../shared/data)")
    source = Source(path=str(SHARED / name))
    off = PhiConfig(policy="off", off_because="public")
    report = prepare(RecordsConfig(sources=[source], limit=limit, phi=off), tmp_path)
    assert report.malformed == 0 and report.languages == {language: report.cases}
    assert report.cases + sum(report.dropped.values()) == (limit or 198)
