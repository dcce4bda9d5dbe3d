"""An experiment as its steps are told it: the reference, the arms that differ, and where each keeps its state."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.arms import Arm, ArmsReport
from clinical_r1.evaluation.experiments.audit_verifier import Settings as AuditReport
from clinical_r1.evaluation.experiments.cross_language import BILINGUAL, SCRATCH
from clinical_r1.evaluation.experiments.held_out_site import LEAKING, WITH
from clinical_r1.evaluation.experiments.held_out_site import Settings as HeldOutReport
from clinical_r1.evaluation.experiments.selection import Leak, Selection
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.rewards import reward_table
from clinical_r1.runs.contents import as_argument
from clinical_r1.runs.experiments import (
    AblateRewardsConfig,
    AblateRlConfig,
    AuditVerifierConfig,
    CompareAlgorithmsConfig,
    CompareSynthesizersConfig,
    CrossLanguageConfig,
    ExperimentConfig,
    HeldOutSiteConfig,
)
from clinical_r1.runs.placed import ARMS_AT_ONCE
from clinical_r1.runs.steps import ArmsData, Training, Trial
from clinical_r1.schema import first_problem, write_jsonl
from clinical_r1.training.ppo.config import PPOConfig

ModelT = TypeVar("ModelT", bound=BaseModel)


class Local(NamedTuple):
    """Where an experiment runs."""

    samples: Path
    """Folder for what is sampled from the simulated world."""
    state_dir: Path
    """Of the shared steps; each arm has a folder of its own in it."""
    twins_sha256: str = ""
    """Of the id-aligned cases (cross-language)."""


class Design(NamedTuple):
    """One experiment: a reference, arms that differ from it, one report."""

    arms: list[tuple[Arm, Training, Trial, str]]
    """What the report is told of an arm, its training, its evaluation, its folder of state."""
    reference: Training | None = None
    """None: nothing is trained, and there are no traces."""
    data: ArmsData = ArmsData()
    """How the arms' data differ from the reference's."""
    data_state: str = ""
    """The folder of state for them; empty: the shared one."""
    further: dict[str, Any] = {}
    """What its report is told besides."""
    report: type[ArmsReport] = ArmsReport


def arm_state(local: Local, *settings: str) -> str:
    """Equal arms of different experiments share checkpoints and journals; different ones never do."""
    name = hashlib.sha256("\x1f".join(settings).encode()).hexdigest()[:12]
    return str(local.state_dir / f"arm-{name}")


def shared(settings: ModelT, parts: int, at_once: int = 1) -> ModelT:
    """The settings of one of `parts` steps, of which `at_once` run at a time: budgets and limits of endpoints hold for
    the whole experiment, wherever in the settings they are."""
    if isinstance(settings, BudgetConfig):
        return settings.shared(parts)
    if isinstance(settings, EndpointConfig):
        return settings.shared(at_once)
    inner = {name: shared(value, parts, at_once) for name, value in settings if isinstance(value, BaseModel)}
    return settings.model_copy(update=inner)


def arguments(name: str, config: ExperimentConfig, local: Local) -> dict[str, Any]:
    """What the steps of an experiment are told. Raises UserError for a table or file that is not there."""
    design = DESIGNS[name](config, local)
    settings: Any = config.experiment  # type: ignore[attr-defined]
    trains, count = design.reference is not None, len(design.arms)
    at_once = min(count, ARMS_AT_ONCE)
    evaluations = count + 1 if trains else 2  # an audited judge has a budget of its own, for audit and evaluation
    syntheses = 2 if design.data.synthesis else 1
    told = design.report(
        arms=[arm for arm, *_ in design.arms],
        design_points=settings.design_points,
        planted_points=settings.planted_points if config.report.simulated else None,
        simulated=config.report.simulated,
        **design.further,
    )
    return {
        "experiment": name,
        "records": as_argument(config.records),
        "synthesis": as_argument(shared(config.synthesis, syntheses)) if trains else "",
        "base_model": as_argument(config.base_model) if trains else "",
        "reference_training": as_argument(design.reference) if design.reference else "",
        "reference_evaluation": as_argument(shared(_trial(config), evaluations)) if trains else "",
        "arms_data": as_argument(shared(design.data, syntheses)),
        "arms_state_dir": design.data_state or str(local.state_dir),
        "arms": [
            {
                "name": arm.name,
                "training": as_argument(shared(how, count, at_once)),
                "evaluation": as_argument(shared(trial, evaluations, at_once)),
                "state_dir": state,
            }
            for arm, how, trial, state in design.arms
        ],
        "report": as_argument(told),
    }


def _supervised(config: ExperimentConfig) -> Training:
    """The reference of most experiments."""
    return Training(sft=config.sft)


def _reinforced(
    config: ExperimentConfig, local: Local, table: Any, seed: int, label: str
) -> tuple[Arm, Training, Trial, str]:
    """One run of RL. The paper's table with seed 0 is the same arm in whichever experiment it stands."""
    ppo = config.ppo.model_copy(update={"seed": seed, "reward_table": table})
    arm = Arm(name=f"{label}-{seed}", seed=seed, factors={"table": label})
    state = arm_state(local, as_argument(config.sft), as_argument(ppo))
    return arm, Training(start="reference", ppo=ppo), _trial(config), state


def ablate_rl(config: AblateRlConfig, local: Local) -> Design:
    """SFT against SFT + RL: one arm a seed."""
    table = config.ppo.reward_table
    label = table if isinstance(table, str) else "custom"
    arms = [_reinforced(config, local, table, seed, label) for seed in config.experiment.seeds]
    return Design(arms, _supervised(config))


def ablate_rewards(config: AblateRewardsConfig, local: Local) -> Design:
    """Reward tables against each other: one arm a table and seed."""
    settings = config.experiment
    for table in settings.tables:
        reward_table(table)
    pairs = [(table, seed) for table in settings.tables for seed in settings.seeds]
    return Design([_reinforced(config, local, table, seed, table) for table, seed in pairs], _supervised(config))


def compare_algorithms(config: CompareAlgorithmsConfig, local: Local) -> Design:
    """PPO, GRPO, RLOO: one arm an algorithm and seed. PPO's are those of ablate-rl."""
    arms = []
    for algorithm in config.experiment.algorithms:
        try:
            ppo = PPOConfig.model_validate(config.ppo.model_dump() | {"algorithm": algorithm})
        except ValidationError as error:
            raise UserError(f"experiment.algorithms: {algorithm}: ppo: {first_problem(error)}") from None
        told = config.model_copy(update={"ppo": ppo})
        for seed in config.experiment.seeds:
            _, training, trial, state = _reinforced(told, local, ppo.reward_table, seed, algorithm)
            arm = Arm(name=f"{algorithm}-{seed}", seed=seed, factors={"algorithm": algorithm})
            arms.append((arm, training, trial, state))
    return Design(arms, _supervised(config))


def compare_synthesizers(config: CompareSynthesizersConfig, local: Local) -> Design:
    """Another endpoint writes the traces of the same cases: one arm a seed of the model that they teach."""
    settings = config.experiment
    update: dict[str, Any] = {"synthesizer": settings.rival, "name": f"{config.synthesis.name}-rival"}
    if config.synthesis.judge is None:
        update["judge"] = config.synthesis.synthesizer  # one judge for both: everything else is equal
    rival = config.synthesis.model_copy(update=update)
    written = (as_argument(rival), _endpoints(config))
    arms = []
    for seed in settings.seeds:
        sft = config.sft.model_copy(update={"seed": seed})
        state = arm_state(local, *written, as_argument(sft))
        arms.append((Arm(name=f"rival-{seed}", seed=seed), Training(sft=sft), _trial(config), state))
    return Design(arms, _supervised(config), ArmsData(synthesis=rival), arm_state(local, *written))


def cross_language(config: CrossLanguageConfig, local: Local) -> Design:
    """Base model x training language, on patients written in both languages. The bilingual base is the reference that
    the other experiments share; the other base knows no language."""
    settings, arms = config.experiment, []
    for base, start in ((SCRATCH, "base"), (BILINGUAL, "reference")):
        for language in ("en", "zh"):
            select = Selection.model_validate({"languages": [language]})
            arm = Arm(name=f"{base} base, trained in {language}", factors={"base": base, "train": language})
            training = Training.model_validate({"start": start, "select": select, "sft": settings.sft})
            told = (as_argument(config.sft), as_argument(select), as_argument(settings.sft))
            state = arm_state(local, base, local.twins_sha256, *told)
            arms.append((arm, training, _trial(config), state))
    twins = config.synthesis.model_copy(update={"name": f"{config.synthesis.name}-twins"})
    data = ArmsData(records=settings.records, sources_sha256=local.twins_sha256, synthesis=twins)
    return Design(arms, _supervised(config), data, arm_state(local, "twins", local.twins_sha256))


def held_out_site(config: HeldOutSiteConfig, local: Local) -> Design:
    """Without the site (the reference), with it, and without it but with some of its test cases."""
    settings = config.experiment
    without = Selection(without_sites=[settings.site], limit=settings.traces)
    choices = {WITH: Selection(limit=settings.traces)}
    data, leak = ArmsData(), None
    if settings.leak_share:
        choices[LEAKING] = without.model_copy(update={"leaked": True})
        leak = Leak(site=settings.site, share=settings.leak_share)
        data = ArmsData(leak=leak, synthesis=config.synthesis)
    arms = []
    for name, select in choices.items():
        told = ["" if leak is None else as_argument(leak), as_argument(select), as_argument(config.sft)]
        training = Training(select=select, sft=config.sft)
        arms.append((Arm(name=name), training, _trial(config), arm_state(local, *told)))
    further = {"site": settings.site, "leak_points": 100 * settings.leak_share if settings.leak_share else None}
    reference = Training(select=without, sft=config.sft)
    return Design(arms, reference, data, further=further, report=HeldOutReport)


def _trial(config: Any) -> Trial:
    """An arm's evaluation. Arms are compared with whole thoughts: no curve over the thinking budget is drawn."""
    return Trial(evaluation=config.evaluation.model_copy(update={"budget_cases": 0}))


def audit_verifier(config: AuditVerifierConfig, local: Local) -> Design:
    """One arm a judge; nothing is trained."""
    settings, arms = config.experiment, []
    labelled = _labelled(config, local)
    for name, judge in settings.judges.items():
        evaluation = config.evaluation.model_copy(update={"reward_judge": judge, "independent_judge": None})
        trial = Trial(
            evaluation=evaluation,
            endpoint=settings.endpoint,
            judge=judge,
            labelled=str(labelled),
        )
        state = arm_state(local, name, as_argument(judge), _endpoints(config))
        arms.append((Arm(name=name), Training(), trial, state))
    further = {"suspect": settings.suspect, "model": settings.endpoint.name}
    return Design(arms, further=further, report=AuditReport)


def _endpoints(config: ExperimentConfig) -> str:
    return json.dumps({name: one.model_dump(mode="json") for name, one in config.endpoints.items()})


def _labelled(config: AuditVerifierConfig, local: Local) -> Path:
    """The graded answers: the user's, or simulated ones."""
    settings = config.experiment
    if settings.labelled:
        path = Path(settings.labelled)
        if not path.is_file():
            raise UserError(f"experiment.labelled: {path}: no such file; give JSONL of graded answers")
        return path.resolve()
    if config.simulator is None:
        raise UserError("experiment.labelled: empty without a simulator; give JSONL of graded answers (expert review)")
    from clinical_r1.simulator.world import sample_judgements

    path = local.samples / f"labelled-{settings.rows}-{config.simulator.seed}.jsonl"
    if not path.is_file():
        write_jsonl(path, sample_judgements(settings.rows, seed=config.simulator.seed))
    return path


DESIGNS: dict[str, Callable[[Any, Local], Design]] = {
    "ablate-rl": ablate_rl,
    "ablate-rewards": ablate_rewards,
    "compare-algorithms": compare_algorithms,
    "compare-synthesizers": compare_synthesizers,
    "cross-language": cross_language,
    "held-out-site": held_out_site,
    "audit-verifier": audit_verifier,
}
