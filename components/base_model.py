"""Step 3: where SFT starts: a model folder in production, a tiny Qwen2 from scratch in the embedded default."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def base_model(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    state_dir: str = "",
) -> NamedTuple("Outputs", [("folder", str)]):  # type: ignore[valid-type]
    """Check the configured folder, or make the tiny model (its tokenizer learns from the `sft` split).

    An empty `config` is that of an experiment that trains nothing.
    """
    import hashlib
    from pathlib import Path

    from clinical_r1.atomic import file_sha256
    from clinical_r1.step import load_settings, record_step
    from clinical_r1.training.base import BaseModelConfig, resolve_base_model

    with record_step("base_model", model.path) as record:
        if not config:
            return ("",)
        texts = [Path(splits.path) / "sft.jsonl", Path(traces.path) / "traces.jsonl"]
        settings = load_settings(BaseModelConfig, config)
        # By its path: every step that takes an artifact downloads it. All steps of a run see `state_dir`, and so may
        # those of another run, whose traces give a tiny model another tokenizer.
        made_of = [config, *([] if settings.folder else map(file_sha256, texts))]
        version = f"{code_version}-{hashlib.sha256(''.join(made_of).encode()).hexdigest()[:8]}"
        shared = Path(state_dir) / "base-model" if state_dir else Path(model.path)
        folder = resolve_base_model(settings, texts, shared / version)
        record["folder"] = str(folder)
    return (str(folder),)
