"""Arguments of each experiment's pipeline from its configuration: the arms, and where each keeps its state."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.arms import Arm, ArmsReport
from clinical_r1.evaluation.experiments.audit_verifier import AuditReport
from clinical_r1.evaluation.experiments.cross_language import BILINGUAL, SCRATCH
from clinical_r1.evaluation.experiments.held_out_site import LEAKING, WITH, WITHOUT, HeldOutReport
from clinical_r1.evaluation.experiments.selection import Leak, Selection
from clinical_r1.rewards import reward_table
from clinical_r1.runs.config import as_argument
from clinical_r1.runs.experiments import (
    AblateRewardsConfig,
    AblateRlConfig,
    AuditVerifierConfig,
    CompareSynthesizersConfig,
    CrossLanguageConfig,
    ExperimentConfig,
    HeldOutSiteConfig,
)
from clinical_r1.schema import write_jsonl

Arguments = dict[str, Any]


class Local(NamedTuple):
    """Where an experiment runs."""

    samples: Path
    """Folder for what is sampled from the simulated world."""
    state_dir: Path
    """Of the shared steps; each arm has a folder of its own in it."""
    sources_sha256: str
    code_version: str
    twins_sha256: str = ""
    """Of the id-aligned cases (cross-language)."""


def arm_state(local: Local, *settings: str) -> str:
    """Equal arms of different experiments share checkpoints and journals; different ones never do."""
    name = hashlib.sha256("\x1f".join(settings).encode()).hexdigest()[:12]
    return str(local.state_dir / f"arm-{name}")


def _shared(config: ExperimentConfig, local: Local, *sections: str) -> Arguments:
    arguments: Arguments = {name: as_argument(getattr(config, name)) for name in sections}
    return arguments | {
        "sources_sha256": local.sources_sha256,
        "state_dir": str(local.state_dir),
        "code_version": local.code_version,
    }


_SUPERVISED = ("records", "synthesis", "base_model", "sft", "evaluation")


def _told(config: ExperimentConfig, settings: Any, arms: list[Arm]) -> Arguments:
    """What every report is told."""
    planted = settings.planted_points if config.report.simulated else None
    return {
        "arms": arms,
        "design_points": settings.design_points,
        "planted_points": planted,
        "simulated": config.report.simulated,
    }


def _reinforced(config: ExperimentConfig, local: Local, table: Any, seed: int, name: str) -> dict[str, str]:
    """One run of RL. The paper's table with seed 0 is the same arm in whichever experiment it stands."""
    ppo = as_argument(config.ppo.model_copy(update={"seed": seed, "reward_table": table}))
    return {"name": name, "ppo": ppo, "state_dir": arm_state(local, as_argument(config.sft), ppo)}


def ablate_rl(config: AblateRlConfig, local: Local) -> Arguments:
    """One arm a seed."""
    settings, table = config.experiment, config.ppo.reward_table
    label = table if isinstance(table, str) else "custom"
    names = {seed: f"{label}-{seed}" for seed in settings.seeds}
    arms = [_reinforced(config, local, table, seed, name) for seed, name in names.items()]
    told = [Arm(name=name, seed=seed, factors={"table": label}) for seed, name in names.items()]
    report = ArmsReport(**_told(config, settings, told))
    return _shared(config, local, *_SUPERVISED) | {"arms": arms, "report": as_argument(report)}


def ablate_rewards(config: AblateRewardsConfig, local: Local) -> Arguments:
    """One arm a table and seed."""
    settings = config.experiment
    for table in settings.tables:
        reward_table(table)
    pairs = [(table, seed) for table in settings.tables for seed in settings.seeds]
    arms = [_reinforced(config, local, table, seed, f"{table}-{seed}") for table, seed in pairs]
    told = [Arm(name=f"{table}-{seed}", seed=seed, factors={"table": table}) for table, seed in pairs]
    report = ArmsReport(**_told(config, settings, told))
    return _shared(config, local, *_SUPERVISED) | {"arms": arms, "report": as_argument(report)}


def compare_synthesizers(config: CompareSynthesizersConfig, local: Local) -> Arguments:
    """One arm a seed of the rival's model."""
    settings = config.experiment
    update: Arguments = {"synthesizer": settings.rival, "name": f"{config.synthesis.name}-rival"}
    if config.synthesis.judge is None:
        update["judge"] = config.synthesis.synthesizer  # one judge for both: everything else is equal
    rival = as_argument(config.synthesis.model_copy(update=update))
    endpoints = json.dumps({name: one.model_dump(mode="json") for name, one in config.endpoints.items()})
    rival_state = arm_state(local, rival, endpoints)
    arms = []
    for seed in settings.seeds:
        sft = as_argument(config.sft.model_copy(update={"seed": seed}))
        arms.append({"name": f"rival-{seed}", "sft": sft, "state_dir": arm_state(local, rival, endpoints, sft)})
    told = [Arm(name=f"rival-{seed}", seed=seed) for seed in settings.seeds]
    return _shared(config, local, *_SUPERVISED) | {
        "rival_synthesis": rival,
        "rival_state_dir": rival_state,
        "arms": arms,
        "report": as_argument(ArmsReport(**_told(config, settings, told))),
    }


def cross_language(config: CrossLanguageConfig, local: Local) -> Arguments:
    """Base model x training language."""
    settings = config.experiment
    sft = as_argument(settings.sft)
    told: list[Arm] = []
    arms: dict[str, list[dict[str, str]]] = {}
    for base in (SCRATCH, BILINGUAL):
        arms[base] = []
        for language in ("en", "zh"):
            select = as_argument(Selection(languages=[language]))
            name = f"{base} base, trained in {language}"
            state = arm_state(local, base, local.twins_sha256, as_argument(config.sft), select, sft)
            arms[base].append({"name": name, "select": select, "sft": sft, "state_dir": state})
            told.append(Arm(name=name, factors={"base": base, "train": language}))
    twins = config.synthesis.model_copy(update={"name": f"{config.synthesis.name}-twins"})
    return _shared(config, local, *_SUPERVISED) | {
        "twin_records": as_argument(settings.records),
        "twin_synthesis": as_argument(twins),
        "twins_sha256": local.twins_sha256,
        "twin_state_dir": arm_state(local, "twins", local.twins_sha256),
        "arms_scratch": arms[SCRATCH],
        "arms_bilingual": arms[BILINGUAL],
        "report": as_argument(ArmsReport(**_told(config, settings, told))),
    }


def held_out_site(config: HeldOutSiteConfig, local: Local) -> Arguments:
    """Without the site, with it, and without it but with some of its test cases."""
    settings = config.experiment
    choices = {
        WITHOUT: Selection(without_sites=[settings.site], limit=settings.traces),
        WITH: Selection(limit=settings.traces),
    }
    if settings.leak_share:
        choices[LEAKING] = Selection(without_sites=[settings.site], limit=settings.traces, leaked=True)
    sft = as_argument(config.sft)
    leak = as_argument(Leak(site=settings.site, share=settings.leak_share))
    arms = [
        {
            "name": name,
            "select": as_argument(select),
            "sft": sft,
            "state_dir": arm_state(local, leak, as_argument(select), sft),
        }
        for name, select in choices.items()
    ]
    report = HeldOutReport(
        **_told(config, settings, [Arm(name=name) for name in choices]),
        site=settings.site,
        leak_points=100 * settings.leak_share if settings.leak_share else None,
    )
    return _shared(config, local, "records", "synthesis", "base_model", "evaluation") | {
        "leak": leak,
        "arms": arms,
        "report": as_argument(report),
    }


def audit_verifier(config: AuditVerifierConfig, local: Local) -> Arguments:
    """One arm a judge."""
    settings = config.experiment
    labelled = str(_labelled(config, local))
    endpoints = json.dumps({name: one.model_dump(mode="json") for name, one in config.endpoints.items()})
    arms = []
    for name, judge in settings.judges.items():
        asked = as_argument(judge)
        evaluation = config.evaluation.model_copy(update={"reward_judge": judge, "independent_judge": None})
        arms.append(
            {
                "name": name,
                "judge": asked,
                "evaluation": as_argument(evaluation),
                "state_dir": arm_state(local, name, asked, endpoints),
            }
        )
    report = AuditReport(
        **_told(config, settings, [Arm(name=name) for name in settings.judges]),
        suspect=settings.suspect,
        model=settings.endpoint.name,
    )
    return _shared(config, local, "records") | {
        "endpoint": as_argument(settings.endpoint),
        "labelled": labelled,
        "labelled_sha256": file_sha256(Path(labelled)),
        "arms": arms,
        "report": as_argument(report),
    }


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
    from clinical_r1.simulator.labelled import sample_judgements

    path = local.samples / f"labelled-{settings.rows}-{config.simulator.seed}.jsonl"
    if not path.is_file():
        write_jsonl(path, sample_judgements(settings.rows, seed=config.simulator.seed))
    return path


ARGUMENTS: dict[str, Callable[[Any, Local], Arguments]] = {
    "ablate-rl": ablate_rl,
    "ablate-rewards": ablate_rewards,
    "compare-synthesizers": compare_synthesizers,
    "cross-language": cross_language,
    "held-out-site": held_out_site,
    "audit-verifier": audit_verifier,
}
