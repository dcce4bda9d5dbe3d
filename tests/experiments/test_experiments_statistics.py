"""The statistics of the experiments: planted effects are found, absent ones are not claimed, seeds are clustered."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.finding import Arm, ArmsReport, Estimate, Evidence, Finding, planted
from clinical_r1.evaluation.experiments.reports import REPORTS
from clinical_r1.evaluation.experiments.transfer import twins_of
from clinical_r1.evaluation.judging.audit import Audit, Stability
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Trace, TraceOutcome, Verdict, VerdictLabel, write_jsonl
from clinical_r1.simulator.world import sample_records
from clinical_r1.synthesis.analysis import analyse


def answers(cases: list[Case], right: dict[str, bool]) -> list[Prediction]:
    rows = []
    for case in cases:
        label = VerdictLabel.CORRECT if right[case.id] else VerdictLabel.INCORRECT
        verdict = Verdict(label=label, judge="rule")
        rows.append(
            Prediction(
                case_id=case.id, output="", thinking="t", response="r", outcome=Outcome.OK, reasoning_tokens=9,
                answer_tokens=3, verdict=verdict, independent=verdict,
            )
        )  # fmt: skip
    return rows


def coin(cases: list[Case], chance: float, seed: int) -> dict[str, bool]:
    rng = random.Random(seed)
    return {case.id: rng.random() < chance for case in cases}


def folder(path: Path, cases: list[Case], right: dict[str, bool]) -> Path:
    write_jsonl(path / "predictions.jsonl", answers(cases, right))
    return path


def splits(path: Path, cases: list[Case]) -> Path:
    write_jsonl(path / "test.jsonl", cases)
    return path


def evidence(
    tmp_path: Path, cases: list[Case], reference: Path, runs: list[Path], made: Sequence[Path] = ()
) -> Evidence:
    return Evidence(splits(tmp_path, cases), (tmp_path, tmp_path), reference, runs, made)


def report(experiment: str, settings: ArmsReport, told: Evidence, out_dir: Path) -> Finding:
    return REPORTS[experiment][1](settings, told, out_dir)


def test_power_and_detectable_effect_belong_together() -> None:
    estimate = Estimate(value=0.1, low=0.04, high=0.16, n=500)
    assert estimate.power(estimate.detectable) == pytest.approx(0.9, abs=1e-3)
    assert estimate.power(0.0) == pytest.approx(0.025, abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "confirmed", "verdict"),
    [(0.01, 0.2, True, "shown"), (0.01, 0.2, False, "not shown"), (-0.2, -0.01, True, "opposite"),
     (-0.1, 0.1, True, "not shown")],
)  # fmt: skip
def test_verdicts(low: float, high: float, confirmed: bool, verdict: str) -> None:
    estimate = Estimate(value=(low + high) / 2, low=low, high=high, n=100, confirmed=confirmed)
    assert estimate.verdict == verdict


def test_a_planted_effect_is_found_on_its_own_side_only() -> None:
    estimate = Estimate(value=-0.3, low=-0.4, high=-0.2, n=100)
    assert planted("loss", -20, estimate).found and not planted("gain", 20, estimate).found


def test_ablate_rl_pools_seeds_by_case(tmp_path: Path) -> None:
    cases = list(sample_records(300, seed=1))
    sft = folder(tmp_path / "sft", cases, coin(cases, 0.5, 1))
    runs = [folder(tmp_path / f"r{seed}", cases, coin(cases, 0.75, 10 + seed)) for seed in range(3)]
    settings = ArmsReport(arms=[Arm(name=f"s{seed}", seed=seed) for seed in range(3)], design_points=10)
    finding = report("ablate-rl", settings, evidence(tmp_path, cases, sft, runs), tmp_path / "out")
    assert finding.verdict == "shown" and 15 < finding.effect < 35
    # Three times the answers are not three times the cases: the interval stays that of 300 patients.
    assert finding.ci[1] - finding.ci[0] > 8
    page = (tmp_path / "out" / "report.html").read_text()
    assert "s2" in page and "90%" in page and cases[0].question not in page


def test_ablate_rewards_claims_nothing_between_equal_tables(tmp_path: Path) -> None:
    cases = list(sample_records(300, seed=2))
    sft = folder(tmp_path / "sft", cases, coin(cases, 0.5, 1))
    arms = [Arm(name=f"{table}-{seed}", seed=seed, factors={"table": table}) for table in "ab" for seed in (0, 1)]
    runs = [folder(tmp_path / arm.name, cases, coin(cases, 0.7, index)) for index, arm in enumerate(arms)]
    settings = ArmsReport(arms=arms, design_points=5)
    finding = report("ablate-rewards", settings, evidence(tmp_path, cases, sft, runs), tmp_path / "out")
    assert finding.verdict == "not shown" and finding.ci[0] < 0 < finding.ci[1]


def test_compare_algorithms_finds_the_better_one_and_says_of_what(tmp_path: Path) -> None:
    cases = list(sample_records(300, seed=2))
    sft = folder(tmp_path / "sft", cases, coin(cases, 0.5, 1))
    share = {"ppo": 0.6, "rloo": 0.6, "grpo": 0.8}
    arms = [Arm(name=f"{one}-{seed}", seed=seed, factors={"algorithm": one}) for one in share for seed in (0, 1)]
    runs = [
        folder(tmp_path / arm.name, cases, coin(cases, share[arm.factors["algorithm"]], index))
        for index, arm in enumerate(arms)
    ]
    settings = ArmsReport(arms=arms, design_points=5)
    finding = report("compare-algorithms", settings, evidence(tmp_path, cases, sft, runs), tmp_path / "out")
    assert finding.experiment == "compare-algorithms" and finding.verdict == "shown" and finding.effect > 10
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Each algorithm against SFT" in page and "table" not in finding.answer


def test_cross_language_attributes_the_loss_to_the_base_model(tmp_path: Path) -> None:
    cases = list(sample_records(400, seed=3, twins=True))
    arms, runs = [], []
    for base, other in (("scratch", 0.05), ("bilingual", 0.5)):
        for language in ("en", "zh"):
            name = f"{base}-{language}"
            own, foreign = coin(cases, 0.7, len(runs)), coin(cases, other, 50 + len(runs))
            right = {case.id: (own if case.language == language else foreign)[case.id] for case in cases}
            arms.append(Arm(name=name, factors={"base": base, "train": language}))
            runs.append(folder(tmp_path / name, cases, right))
    before = folder(tmp_path / "base", cases, coin(cases, 0.8, 99))
    settings = ArmsReport(arms=arms, design_points=10, planted_points=20)
    finding = report("cross-language", settings, evidence(tmp_path, cases, before, runs), tmp_path / "out")
    assert finding.verdict == "shown" and 30 < finding.effect < 60
    assert finding.n == 200 and finding.planted[0].found and finding.planted[0].effect < -15
    with pytest.raises(UserError, match="id-aligned"):
        twins_of(list(sample_records(20, seed=3)))


def traces(path: Path, cases: list[Case], at_once: dict[str, bool] | None = None, synthesizer: str = "") -> Path:
    """Traces of the cases; `at_once` says which needed no second try (all, where it is silent)."""
    rows = [
        Trace(
            case_id=case.id, language=case.language, question=case.question, reference=case.reference,
            outcome=TraceOutcome.DIRECT if at_once is None or at_once[case.id] else TraceOutcome.RECOVERED,
            thinking=f"Thinking of {case.question}", response="r", synthesizer=synthesizer,
        )
        for case in cases
    ]  # fmt: skip
    write_jsonl(path / "traces.jsonl", rows)
    write_jsonl(path / "rejected.jsonl", [])
    return path


def test_compare_synthesizers_finds_the_better_teacher_and_keeps_the_chains_analysis(tmp_path: Path) -> None:
    cases, train = list(sample_records(300, seed=6)), list(sample_records(200, seed=7))
    write_jsonl(tmp_path / "sft.jsonl", train)
    made = (
        traces(tmp_path / "first", train, coin(train, 0.6, 1), "plain"),
        traces(tmp_path / "second", train, coin(train, 0.9, 2), "careful"),
    )
    analyse(made[0] / "traces.jsonl", made[1] / "traces.jsonl", made[1])
    before = folder(tmp_path / "before", cases, coin(cases, 0.5, 3))
    runs = [folder(tmp_path / "rival-0", cases, coin(cases, 0.8, 4))]
    settings = ArmsReport(arms=[Arm(name="rival-0", seed=0)], design_points=8, planted_points=30)
    told = evidence(tmp_path, cases, before, runs)._replace(traces=made)
    finding = report("compare-synthesizers", settings, told, tmp_path / "not" / "there" / "yet")
    assert finding.verdict == "shown" and finding.effect > 15 and "careful" in finding.answer
    assert finding.planted[0].found
    assert (tmp_path / "not" / "there" / "yet" / "chains.html").read_text().startswith("<!")


def test_held_out_site_finds_the_site_and_the_leak(tmp_path: Path) -> None:
    cases = list(sample_records(900, seed=4, dialect_site="hillside"))
    train = list(sample_records(300, seed=5))
    at_site = [case for case in cases if case.site == "hillside"]
    without, with_site = coin(cases, 0.7, 1), coin(cases, 0.7, 2)
    without |= coin(at_site, 0.4, 3)
    names = ["without", "with", "leaking"]
    runs = [
        folder(tmp_path / name, cases, right) for name, right in zip(names, (without, with_site, without), strict=True)
    ]
    made = [traces(tmp_path / name, train) for name in names[:2]]
    made.append(traces(tmp_path / names[2], [*train, *at_site[:60]]))
    settings = REPORTS["held-out-site"][0](
        arms=[Arm(name=name) for name in names[1:]], design_points=10, planted_points=20, site="hillside",
        leak_points=100 * 60 / len(at_site),
    )  # fmt: skip
    told = evidence(tmp_path, cases, runs[0], runs[1:], made)
    finding = report("held-out-site", settings, told, tmp_path / "out")
    assert finding.verdict == "shown" and finding.n == len(at_site)
    site, leak = finding.planted
    assert site.found and leak.found and leak.effect == pytest.approx(leak.size, abs=1)
    with pytest.raises(UserError, match="harbour"):
        report("held-out-site", settings.model_copy(update={"site": "harbour"}), told, tmp_path / "out")


def audit(name: str, accepts_wrong: int) -> Audit:
    stable = Stability(n=10, changed=0, rate=0.0, low=0.0, high=0.3)
    return Audit(
        verifier=name, n=400, invalid=0,
        confusion={"true_accept": 200, "false_accept": accepts_wrong, "false_reject": 0,
                   "true_reject": 200 - accepts_wrong},
        sensitivity=1.0, sensitivity_interval=(0.98, 1.0), specificity=1 - accepts_wrong / 200,
        specificity_interval=(0.8, 1.0), kappa=0.9, kappa_interval=(0.8, 1.0), stability={"paraphrase": stable},
    )  # fmt: skip


def test_audit_verifier_corrects_what_a_lenient_judge_reports(tmp_path: Path) -> None:
    cases = list(sample_records(500, seed=6))
    runs = []
    for name, wrong in (("rule", 0), ("lenient", 20)):
        place = tmp_path / name
        (place / "audit").mkdir(parents=True)
        (place / "audit" / "audit.json").write_text(audit(name, wrong).model_dump_json())
        runs.append(folder(place, cases, coin(cases, 0.6 if name == "rule" else 0.64, 7)))
    settings = REPORTS["audit-verifier"][0](
        arms=[Arm(name="rule"), Arm(name="lenient")], design_points=5, planted_points=5, suspect="lenient"
    )
    finding = report("audit-verifier", settings, evidence(tmp_path, cases, tmp_path, runs), tmp_path / "out")
    assert finding.effect == pytest.approx(5.0) and finding.verdict == "shown" and finding.planted[0].found
    assert finding.planted[0].power > 0.9
