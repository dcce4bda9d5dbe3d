"""Where a run's steps run: what no pod could be made of is refused by the form's first step and by the command."""

import json
from typing import Any

import pytest
from test_cli import assert_refused, clinical_r1

from clinical_r1.errors import UserError
from clinical_r1.runs.form import check_placed
from components.configure import provide_claim
from pipelines.placement import Placement


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deploy", "darkk"), ("deploy", "Dark"), ("deploy", ""), ("model_name", "My Model"), ("model_name", "a" * 64),
        ("models_uri", "gs://b/models"), ("models_uri", "s3://b"), ("models_uri", "models"), ("nodes", 0),
        ("nodes", -2),
        ("deadline_hours", float("inf")), ("deadline_hours", 0.0), ("storage_size", "100GB"), ("storage_size", "lots"),
        ("storage_size", "0Gi"), ("memory", "8"), ("memory", "8GB"), ("memory", "8 Gi"), ("memory", ""), ("cpu", "0"),
        ("cpu", "4Gi"),
        ("data_memory", "-1Gi"), ("accelerators", "two"), ("accelerators", "-1"), ("accelerators", "1.5"),
        ("accelerator", "nvidia.com/gpu/x"), ("claim", "My_Claim"), ("claim", ""), ("claim", "-x"),
        ("store_secret", "a secret"), ("ca_config_map", "x/y"), ("image", "a b"), ("image", ""),
        ("node_selector", {"gpu": 1}), ("node_selector", {"gpu": True}), ("tolerations", [{"key": 1}]),
        ("node_selector", {"a b": "c"}), ("tolerations", [{"effect": "never", "key": "x"}]), ("tolerations", [{}]),
        ("storage_class", "Fast!"), ("image_pull_secret", "Pull"), ("claim", "a" * 254),
    ],
)  # fmt: skip
def test_what_only_a_pod_would_meet_is_refused_at_all_doors(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"parameter {name}: ") as refused:
        provide_claim.python_func(**Placement._field_defaults | {name: value})
    assert "\n" not in str(refused.value)
    text = value if isinstance(value, str) else json.dumps(value).replace("Infinity", ".inf")
    assert_refused(clinical_r1("submit", "train", "--param", f"{name}={text}", "--dry-run"), f"parameter {name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("models_uri", ""), ("models_uri", "s3://b-1.x/models/team"), ("models_uri", "/state/models"), ("nodes", 16),
        ("nodes", 2.0), ("memory", "1.5Ti"), ("cpu", "0.5"), ("cpu", "500m"), ("storage_size", ""), ("claim", "a.b-c"),
        ("image", "registry.example:5000/team/trainer:1.2"), ("image", f"r/t@sha256:{'0' * 64}"), ("storage_class", ""),
        ("node_selector", {"nvidia.com/gpu.product": "H200", "x": ""}), ("accelerator", "amd.com/gpu"),
        ("tolerations", [{"operator": "Exists"}, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
        ("model_name", "7b"), ("deploy", "replicas"),
        ("tolerations", [{"operator": "Exists", "tolerationSeconds": 30}]),
    ],
)  # fmt: skip
def test_what_a_cluster_takes_is_taken(name: str, value: Any) -> None:
    check_placed(Placement._field_defaults | {name: value})


def test_the_first_step_takes_what_a_pipeline_asks_besides() -> None:
    provide_claim.python_func(**Placement._field_defaults, deploy="dark", nodes=2, deadline_hours=0.5)
    with pytest.raises(UserError, match="parameter deploy: drak: write none, dark or replicas"):
        provide_claim.python_func(**Placement._field_defaults, deploy="drak")
