"""The platform on a real Kubernetes node, from an empty machine to an uninstalled chart: `make test-cluster`.

    python -m tests.cluster.suite                        # a model that is made in seconds
    python -m tests.cluster.suite --model runs/latest/model
    python -m tests.cluster.suite --only install publish serve stream

Needs root, Debian's etcd-server, containerd, runc, containernetworking-plugins, nftables, iproute2, prometheus and
buildah, the programs of `tests.cluster.build`, and the images of `make images`. Everything runs in namespaces of its
own, without a way out, and is gone afterwards, however the suite ends. Prints one JSON object as its last line; the
exit code is 1 when something in it is not as it must be, 2 when something is missing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinical_r1.simulator.world import sample_records
from tests.cluster import addons, steps_change, steps_faults, steps_pipeline, steps_serving
from tests.cluster.bench import Bench
from tests.cluster.bringup import BUILT, machine
from tests.cluster.build import BINARIES
from tests.cluster.chart import find_helm
from tests.cluster.isolated import run_isolated
from tests.cluster.model import learned_cases, make_model

PROGRAMS = ("etcd", "containerd", "runc", "prometheus", "buildah", "unshare", "setpriv", "ip", "nft")
PLUGINS = Path("/usr/lib/cni/ptp")
PROBES = 12
NEEDED: tuple[Callable[[Bench], dict[str, Any]], ...] = (
    steps_serving.install,
    steps_serving.publish,
    steps_serving.deploy,
    steps_serving.serve,
)
"""Without these nothing that follows can work."""
STEPS = (
    *NEEDED,
    steps_serving.stream,
    steps_serving.scrape,
    steps_serving.helm_test,
    steps_pipeline.pipeline_steps,
    steps_faults.refusals,
    steps_faults.delete_a_pod,
    steps_faults.kill_an_engine,
    steps_faults.kill_a_gateway,
    steps_faults.restart_the_store,
    steps_change.roll_out,
    steps_faults.stop_thinking,
    steps_change.upgrade_and_roll_back,
    steps_change.uninstall,
)
RECOVERED = ("pod_deleted", "engine_killed", "gateway_killed", "store_restarted", "rollout")
"""Results that are about what came back by itself."""


def missing() -> list[str]:
    """What this machine lacks, each with the way to get it."""
    absent = [f"{name} is not installed" for name in PROGRAMS if not shutil.which(name)]
    absent += [] if PLUGINS.exists() else ["containernetworking-plugins is not installed"]
    late = [name for name, program in BINARIES.items() if not program.binary.exists()]
    absent += [f"not built: python -m tests.cluster.build {' '.join(late)}"] if late else []
    if shutil.which("buildah"):
        inspect = ["buildah", "inspect", "--type", "image"]
        unbuilt = [
            name for name in BUILT if subprocess.run([*inspect, name], capture_output=True, check=False).returncode
        ]
        absent += [f"no image {name}: run `make images IMAGES='trainer gateway initializer'`" for name in unbuilt]
    return absent


def run(model: Path | None, only: list[str], parameters: dict[str, Any]) -> int:
    """Every step inside the namespaces; the JSON object; the exit code."""
    results: dict[str, Any] = {}
    failed: list[str] = []
    with machine() as running:
        results["platform_up_s"] = round(sum(running.seconds.values()), 1)
        print(f"platform up: {results['platform_up_s']} s", flush=True)
        made = running.plane.folder / "models"
        made.mkdir()
        thoughtless = make_model(made / "thoughtless", thinks=False)
        # A trained model thinks about cases of the world that it was trained in.
        probes = list(sample_records(PROBES, seed=2)) if model else learned_cases(PROBES)
        bench = Bench(running, model or make_model(made / "thinks", thinks=True), thoughtless, probes, parameters)
        for step in STEPS:
            if only and step.__name__ not in only:
                continue
            start = time.monotonic()
            try:
                found = step(bench)
            except Exception:
                traceback.print_exc()
                print(bench.troubles(), flush=True)
                failed.append(step.__name__)
                if step in NEEDED:
                    break
                continue
            results |= found
            print(f"{step.__name__}: {found} ({time.monotonic() - start:.0f} s)", flush=True)
    recovered = {name: results.pop(name) for name in RECOVERED if name in results}
    print(json.dumps(results | {"recovered": recovered, "failed": failed}), flush=True)
    return 1 if failed else 0


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder that thinks, such as runs/latest/model")
    parser.add_argument("--only", nargs="*", default=[], help="these steps only, such as install publish serve stream")
    parser.add_argument(
        "--parameters", type=json.loads, default={}, help='run parameters of the pipeline as JSON: {"ppo_steps": 2}'
    )
    args = parser.parse_args()
    if args.model and not (args.model / "config.json").is_file():
        parser.error(f"--model {args.model}: no model folder (config.json is missing)")
    if "CLUSTER_FOLDER" in os.environ:
        return run(args.model.resolve() if args.model else None, args.only, args.parameters)
    if lacking := missing():
        print("error: " + "; ".join(lacking), file=sys.stderr)
        return 2
    # Inside there is no way out: what comes from Go modules is fetched and cached here.
    addons.resource_types(), addons.kserve_documents(), find_helm()
    return run_isolated([sys.executable, "-m", "tests.cluster.suite", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
