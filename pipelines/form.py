"""The forms of the dashboard's "Create run": typed parameters, a default for each, one line that says what it is.

A parameter that is left as it is (empty, -1) means: as the preset says. `clinical_r1.runs.form` knows what each sets.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Dict, NamedTuple, get_args, get_origin, get_type_hints  # noqa: UP035

import yaml

from clinical_r1.errors import UserError
from clinical_r1.settings import read_value


class TrainForm(NamedTuple):
    """What `train` asks for, and with ExperimentForm the experiments."""

    preset: Annotated[
        str, "Shipped configuration to start from: demo, small, hospital-7b; none: overrides hold all."
    ] = "demo"
    records: Annotated[
        str, "URIs of records (s3://BUCKET/records/NAME, /state/FILE), with commas. Empty: simulated."
    ] = ""
    record_map: Annotated[
        str, "Columns of the records: question=note,reference=diagnosis,patient=pid. Empty: found."
    ] = ""
    languages: Annotated[str, "Languages of the records to use: en, zh, or both. Empty: all."] = ""
    limit: Annotated[int, "At most so many records. -1: all."] = -1
    base_model: Annotated[str, "Model to start from: s3://BUCKET/models/NAME/VERSION or a folder on /state."] = ""
    traces: Annotated[
        str, "URI of finished reasoning traces (s3://BUCKET/FILE, /state/FILE), in place of synthesis. Empty: none."
    ] = ""
    synthesizer_url: Annotated[str, "OpenAI-compatible endpoint of the teacher, up to /v1. Empty: the preset's."] = ""
    synthesizer_model: Annotated[str, "Model that the teacher's endpoint is asked for."] = ""
    synthesizer_key: Annotated[
        str, "Key in the endpoints' Secret for the teacher: SYNTHESIZER_API_KEY. Empty: none."
    ] = ""
    judge_url: Annotated[str, "Endpoint of the judge of answers and rewards. Empty: the teacher's."] = ""
    judge_model: Annotated[str, "Model that the judge's endpoint is asked for."] = ""
    judge_key: Annotated[str, "Key in the endpoints' Secret for the judge: JUDGE_API_KEY. Empty: none."] = ""
    endpoints_trusted: Annotated[bool, "The endpoints lie inside your security boundary: records may reach them."] = (
        False
    )
    sft_epochs: Annotated[float, "Epochs of fine-tuning (the paper: 3). -1: the preset's."] = -1.0
    sft_learning_rate: Annotated[float, "Learning rate of fine-tuning (the paper: 5e-6). -1: the preset's."] = -1.0
    algorithm: Annotated[
        str, "Reinforcement learning: ppo (with a critic), grpo or rloo (groups of answers). Empty: the preset's."
    ] = ""
    ppo_steps: Annotated[int, "Steps of reinforcement learning. -1: the preset's."] = -1
    ppo_learning_rate: Annotated[float, "Learning rate of the policy (the paper: 5e-7). -1: the preset's."] = -1.0
    batch_size: Annotated[int, "Batch of fine-tuning and of reinforcement learning (the paper: 16). -1: preset's."] = -1
    kl_beta: Annotated[float, "Weight of the KL penalty (the paper: 0.03). -1: the preset's."] = -1.0
    clip: Annotated[float, "Clip range of the policy's ratio (the paper: 0.2). -1: the preset's."] = -1.0
    reward_table: Annotated[str, "Reward table by name: paper, huatuo, icd10_graded. Empty: the preset's."] = ""
    max_new_tokens: Annotated[int, "Longest answer in rollouts and evaluation, in tokens. -1: the preset's."] = -1
    shards: Annotated[int, "Parts that synthesis runs in at once; the traces do not depend on it. -1: preset's."] = -1
    seed: Annotated[int, "One seed for records, synthesis, training and evaluation. -1: the preset's."] = -1
    overrides: Annotated[Dict[str, str], 'Any setting of any section as JSON: {"sft": {"warmup_share": 0.1}}.'] = {}  # noqa: UP006
    state_dir: Annotated[str, "Folder on the volume for journals and checkpoints. Empty: one for these records."] = ""


class ExperimentForm(NamedTuple):
    """What the experiments ask for besides, and what they ask for in other words."""

    experiment: Annotated[
        str,
        "ablate-rl, ablate-rewards, compare-algorithms, compare-synthesizers, cross-language, held-out-site, "
        "audit-verifier.",
    ] = "ablate-rl"
    preset: Annotated[
        str, "Configuration to start from. Empty: the shipped one of the experiment. none: overrides."
    ] = ""


class AuditForm(NamedTuple):
    """What the audit of served answers asks for."""

    store: Annotated[str, "Where the gateway samples to: s3://BUCKET/audit. Empty: audit/ of the chart's bucket."] = ""
    model_version: Annotated[str, "Judge answers of this model version only. Empty: all."] = ""
    days: Annotated[int, "Judge answers of the last so many days. -1: 30."] = -1
    judge_url: Annotated[str, "OpenAI-compatible endpoint of the judge. Empty: names and codes are compared."] = ""
    judge_model: Annotated[str, "Model that the judge's endpoint is asked for."] = ""
    judge_key: Annotated[str, "Key in the endpoints' Secret for the judge: JUDGE_API_KEY. Empty: none."] = ""
    endpoints_trusted: Annotated[bool, "The judge lies inside your security boundary: answers may reach it."] = False
    labelled: Annotated[str, "JSONL of graded answers on /state, to correct for the judge's errors. Empty: none."] = ""
    overrides: Annotated[Dict[str, str], 'Any setting of the audit as JSON: {"concurrency": 8}.'] = {}  # noqa: UP006


def described(form: type) -> dict[str, tuple[Any, str]]:
    """Parameter -> (its type, what it is)."""
    hints = get_type_hints(form, include_extras=True)
    return {name: (get_args(hint)[0], get_args(hint)[1]) for name, hint in hints.items()}


def converted(name: str, text: str, kind: Any) -> Any:
    """`--param NAME=TEXT` as the declared type of the parameter; the server refuses another one. Raises UserError."""
    if kind is str:
        return text
    try:
        value = yaml.safe_load(text) if kind is bool else read_value(text)  # `off` is a word, but where a bool is asked
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--param {name}={text}: the value is not valid JSON or YAML: close its brackets") from None
    kind = get_origin(kind) or kind
    if kind is float and isinstance(value, str):
        value = _number(value)
    good = isinstance(value, (int, float) if kind is float else kind)
    if not good or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping", list: "a list"}
        raise UserError(f"--param {name}={text}: wants {words[kind]}: write one")
    return float(value) if kind is float else value


def _number(text: str) -> Any:
    """YAML 1.1 takes 5e-6 for a word."""
    try:
        return float(text)
    except ValueError:
        return text


def google_docstring(summary: str, forms: Mapping[str, tuple[Any, str]]) -> str:
    """A docstring from which kfp takes the description of each parameter."""
    lines = "\n".join(f"    {name}: {text}" for name, (_, text) in forms.items())
    return f"{summary}\n\nArgs:\n{lines}\n"
