"""An experiment as its steps are told it: the reference, the arms that differ, where each keeps its state; and the step
that no other pipeline has, the data of the arms."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field, ValidationError

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.experiments.finding import Arm, ArmsReport
from clinical_r1.evaluation.experiments.reports import AuditReport
from clinical_r1.evaluation.experiments.selection import Leak, Selection, leak_cases
from clinical_r1.evaluation.experiments.transfer import BILINGUAL, LEAKING, SCRATCH, WITH, HeldOutReport
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.run import prepare
from clinical_r1.rewards import reward_table
from clinical_r1.runs import config as runs
from clinical_r1.runs.config import ARMS_AT_ONCE, ExperimentConfig
from clinical_r1.runs.sources import as_argument, fetched
from clinical_r1.schema import first_problem, write_jsonl
from clinical_r1.settings import Names
from clinical_r1.simulator.beside import PATIENT_KEY
from clinical_r1.strict import Strict
from clinical_r1.synthesis.analysis import analyse
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.run import synthesize
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.verifier.config import JudgeConfig

ModelT = TypeVar("ModelT", bound=BaseModel)


class Training(Strict):
    """How an arm (or the reference) is trained; without `sft` and `ppo` not at all."""

    start: Literal["base", "reference"] = "base"
    """What it starts from; the reference itself starts from the base model."""
    select: Selection = Field(default_factory=Selection)
    """Which of the traces it is fine-tuned on."""
    sft: SFTConfig | None = None
    """Fine-tuning."""
    ppo: PPOConfig | None = None
    """Reinforcement learning."""


class Trial(Strict):
    """How an arm is evaluated on the test split; without `evaluation` not at all."""

    evaluation: EvaluationConfig | None = None
    """Sampling and judges."""
    endpoint: EndpointConfig | None = None
    """Who answers in place of the trained model."""
    judge: JudgeConfig | None = None
    """A judge to audit."""
    labelled: Annotated[str, Names.FILES] = ""
    """JSONL of graded answers to audit it on."""


class ArmsData(Strict):
    """How the arms' splits and traces differ from the reference's; with nothing set they are the same."""

    leak: Leak | None = None
    """Test cases in the training data."""
    records: RecordsConfig | None = None
    """Other records."""
    sources_sha256: str = ""
    """Keys the cache to their content."""
    synthesis: SynthesisConfig | None = None
    """Who writes traces of these cases; None: the reference's traces."""


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
    report: Callable[..., ArmsReport] = ArmsReport
    further: dict[str, Any] = {}
    """What its report is told besides."""


def _arm_state(local: Local, *settings: str) -> str:
    """Equal arms of different experiments share checkpoints and journals; different ones never do."""
    name = hashlib.sha256("\x1f".join(settings).encode()).hexdigest()[:12]
    return str(local.state_dir / f"arm-{name}")


def _shared(settings: ModelT, parts: int, at_once: int = 1) -> ModelT:
    """The settings of one of `parts` steps, of which `at_once` run at a time: budgets and limits of endpoints hold for
    the whole experiment, wherever in the settings they are."""
    if isinstance(settings, BudgetConfig):
        return settings.shared(parts)
    if isinstance(settings, EndpointConfig):
        return settings.shared(at_once)
    inner = {name: _shared(value, parts, at_once) for name, value in settings if isinstance(value, BaseModel)}
    return settings.model_copy(update=inner)


def arguments(name: str, config: ExperimentConfig[Any], local: Local) -> dict[str, Any]:
    """What the steps of an experiment are told. Raises UserError for a table or file that is not there."""
    design, settings, simulated = DESIGNS[name](config, local), config.experiment, config.report.simulated
    trains, count = design.reference is not None, len(design.arms)
    at_once = min(count, ARMS_AT_ONCE)
    evaluations = count + 1 if trains else 2  # an audited judge has a budget of its own, for audit and evaluation
    syntheses = 2 if design.data.synthesis else 1
    told = design.report(
        arms=[arm for arm, *_ in design.arms],
        design_points=settings.design_points,
        planted_points=settings.planted_points if simulated else None,
        simulated=simulated,
        **design.further,
    )
    return {
        "experiment": name,
        "records": as_argument(config.records),
        "synthesis": as_argument(_shared(config.synthesis, syntheses)) if trains else "",
        "base_model": as_argument(config.base_model) if trains else "",
        "reference_training": as_argument(design.reference) if design.reference else "",
        "reference_evaluation": as_argument(_shared(_trial(config), evaluations)) if trains else "",
        "arms_data": as_argument(_shared(design.data, syntheses)),
        "arms_state_dir": design.data_state or str(local.state_dir),
        "arms": [
            {
                "name": arm.name,
                "training": as_argument(_shared(how, count, at_once)),
                "evaluation": as_argument(_shared(trial, evaluations, at_once)),
                "state_dir": state,
            }
            for arm, how, trial, state in design.arms
        ],
        "report": as_argument(told),
    }


def _trial(config: ExperimentConfig[Any]) -> Trial:
    """An arm's evaluation. Arms are compared with whole thoughts: no curve over the thinking budget is drawn."""
    return Trial(evaluation=config.evaluation.model_copy(update={"budget_cases": 0}))


def _reinforced(
    config: ExperimentConfig[Any], local: Local, ppo: PPOConfig, label: str, factor: str = "table"
) -> tuple[Arm, Training, Trial, str]:
    """One run of RL. The paper's table with seed 0 is the same arm in whichever experiment it stands."""
    arm = Arm(name=f"{label}-{ppo.seed}", seed=ppo.seed, factors={factor: label})
    state = _arm_state(local, as_argument(config.sft), as_argument(ppo))
    return arm, Training(start="reference", ppo=ppo), _trial(config), state


def ablate_rl(config: ExperimentConfig[runs.AblateRl], local: Local) -> Design:
    """SFT against SFT + RL: one arm a seed."""
    label = config.ppo.reward_table if isinstance(config.ppo.reward_table, str) else "custom"
    runs = [config.ppo.model_copy(update={"seed": seed}) for seed in config.experiment.seeds]
    return Design([_reinforced(config, local, ppo, label) for ppo in runs], Training(sft=config.sft))


def ablate_rewards(config: ExperimentConfig[runs.AblateRewards], local: Local) -> Design:
    """Reward tables against each other: one arm a table and seed."""
    arms = []
    for table in config.experiment.tables:
        reward_table(table)
        for seed in config.experiment.seeds:
            ppo = config.ppo.model_copy(update={"seed": seed, "reward_table": table})
            arms.append(_reinforced(config, local, ppo, table))
    return Design(arms, Training(sft=config.sft))


def compare_algorithms(config: ExperimentConfig[runs.CompareAlgorithms], local: Local) -> Design:
    """PPO, GRPO, RLOO: one arm an algorithm and seed. PPO's are those of ablate-rl."""
    arms = []
    for algorithm in config.experiment.algorithms:
        try:
            ppo = PPOConfig.model_validate(config.ppo.model_dump() | {"algorithm": algorithm})
        except ValidationError as error:
            raise UserError(f"experiment.algorithms: {algorithm}: ppo: {first_problem(error)}") from None
        for seed in config.experiment.seeds:
            seeded = ppo.model_copy(update={"seed": seed})
            arms.append(_reinforced(config, local, seeded, algorithm, "algorithm"))
    return Design(arms, Training(sft=config.sft))


def compare_synthesizers(config: ExperimentConfig[runs.CompareSynthesizers], local: Local) -> Design:
    """Another endpoint writes the traces of the same cases: one arm a seed of the model that they teach."""
    update: dict[str, Any] = {"synthesizer": config.experiment.rival, "name": f"{config.synthesis.name}-rival"}
    if config.synthesis.judge is None:
        update["judge"] = config.synthesis.synthesizer  # one judge for both: everything else is equal
    rival = config.synthesis.model_copy(update=update)
    written = (as_argument(rival), _endpoints(config))
    arms = []
    for seed in config.experiment.seeds:
        sft = config.sft.model_copy(update={"seed": seed})
        state = _arm_state(local, *written, as_argument(sft))
        arms.append((Arm(name=f"rival-{seed}", seed=seed), Training(sft=sft), _trial(config), state))
    return Design(arms, Training(sft=config.sft), ArmsData(synthesis=rival), _arm_state(local, *written))


def cross_language(config: ExperimentConfig[runs.CrossLanguage], local: Local) -> Design:
    """Base model x training language, on patients written in both languages. The bilingual base is the reference that
    the other experiments share; the other base knows no language."""
    settings, arms = config.experiment, []
    for base, start in ((SCRATCH, "base"), (BILINGUAL, "reference")):
        for language in ("en", "zh"):
            select = Selection.model_validate({"languages": [language]})
            arm = Arm(name=f"{base} base, trained in {language}", factors={"base": base, "train": language})
            training = Training.model_validate({"start": start, "select": select, "sft": settings.sft})
            told = (as_argument(config.sft), as_argument(select), as_argument(settings.sft))
            arms.append((arm, training, _trial(config), _arm_state(local, base, local.twins_sha256, *told)))
    twins = config.synthesis.model_copy(update={"name": f"{config.synthesis.name}-twins"})
    data = ArmsData(records=settings.records, sources_sha256=local.twins_sha256, synthesis=twins)
    return Design(arms, Training(sft=config.sft), data, _arm_state(local, "twins", local.twins_sha256))


def held_out_site(config: ExperimentConfig[runs.HeldOutSite], local: Local) -> Design:
    """Without the site (the reference), with it, and without it but with some of its test cases."""
    settings, leak = config.experiment, None
    without = Selection(without_sites=[settings.site], limit=settings.traces)
    choices = {WITH: Selection(limit=settings.traces)}
    if settings.leak_share:
        choices[LEAKING] = without.model_copy(update={"leaked": True})
        leak = Leak(site=settings.site, share=settings.leak_share)
    arms = []
    for name, select in choices.items():
        told = ["" if leak is None else as_argument(leak), as_argument(select), as_argument(config.sft)]
        training = Training(select=select, sft=config.sft)
        arms.append((Arm(name=name), training, _trial(config), _arm_state(local, *told)))
    data = ArmsData(leak=leak, synthesis=config.synthesis) if leak else ArmsData()
    further = {"site": settings.site, "leak_points": 100 * settings.leak_share if leak else None}
    return Design(arms, Training(select=without, sft=config.sft), data, report=HeldOutReport, further=further)


def audit_verifier(config: ExperimentConfig[runs.AuditVerifier], local: Local) -> Design:
    """One arm a judge; nothing is trained."""
    settings, arms, labelled = config.experiment, [], _labelled(config, local)
    for name, judge in settings.judges.items():
        evaluation = config.evaluation.model_copy(update={"reward_judge": judge, "independent_judge": None})
        trial = Trial(evaluation=evaluation, endpoint=settings.endpoint, judge=judge, labelled=str(labelled))
        state = _arm_state(local, name, as_argument(judge), _endpoints(config))
        arms.append((Arm(name=name), Training(), trial, state))
    return Design(arms, report=AuditReport, further={"suspect": settings.suspect, "model": settings.endpoint.name})


def _endpoints(config: ExperimentConfig[Any]) -> str:
    return json.dumps({name: one.model_dump(mode="json") for name, one in config.endpoints.items()})


def _labelled(config: ExperimentConfig[runs.AuditVerifier], local: Local) -> Path:
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


def prepare_data(
    told: ArmsData, made: tuple[Path, Path], out: tuple[Path, Path], state_dir: Path, simulated: bool
) -> dict[str, object]:
    """Splits and traces of the arms from those of the reference (`made`) into two folders (`out`); returns counts.

    Where another synthesizer writes traces of the same cases, chains.json and chains.html say how they differ.
    """
    counts: dict[str, object] = {}
    splits, traces = out
    if told.records:
        if simulated:
            os.environ.setdefault(told.records.phi.key_env, PATIENT_KEY)
        with TemporaryDirectory() as folder:
            counts["records"] = prepare(fetched(told.records, Path(folder)), splits).model_dump(mode="json")
    elif told.leak:
        counts["leak"] = leak_cases(told.leak, made[0], splits)
    else:
        shutil.copytree(made[0], splits, dirs_exist_ok=True)
    if told.synthesis:
        report = synthesize(told.synthesis, splits / "sft.jsonl", traces, state_dir / "synthesize-0-of-1")
        counts["synthesis"] = report.model_dump(mode="json")
        if not (told.records or told.leak):
            names = ("first synthesizer", "second synthesizer")
            analyse(made[1] / "traces.jsonl", traces / "traces.jsonl", traces, names)
    else:
        shutil.copytree(made[1], traces, dirs_exist_ok=True)
    return counts
