#!/usr/bin/env bash
# Renders the chart for those without Helm into manifests/rendered (`make manifests`), or with `check` lints it
# (`make lint-chart`): helm lint --strict and kubeconform, strict, against Kubernetes' schemas and the real CRDs.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
TOOLS=$(tests/chart/tools.sh | tail -1)
CHART=helm/clinical-r1
MODEL=serving.model.uri=s3://clinical-r1/models/clinicalgpt-r1/1
APIS=()
for api in serving.kserve.io/v1beta1/InferenceService trainer.kubeflow.org/v1alpha1/TrainingRuntime \
  monitoring.coreos.com/v1/PodMonitor monitoring.coreos.com/v1/PrometheusRule keda.sh/v1alpha1/ScaledObject \
  kueue.x-k8s.io/v1beta1/LocalQueue pipelines.kubeflow.org/v2beta1/PipelineVersion \
  serving.kserve.io/v1alpha2/LLMInferenceService; do
  APIS+=(--api-versions "$api")
done
# Rules, dashboard and pipelines are links on purpose; Helm says so at each call.
# `helm lint` cannot be told what the cluster has, and reports the chart's own messages about that as information.
quietly() { "$TOOLS/helm" "$@" 2> >(grep -vE 'found symbolic link in path|\[INFO\] Fail: .* which this cluster does not have' >&2); }
template() { quietly template clinical-r1 "$CHART" --namespace clinical-r1 "${APIS[@]}" "$@"; }

manifests() { # manifests FOLDER
  local name
  for name in one-gpu production; do
    { printf '# Rendered from helm/clinical-r1 by `make manifests`; values: examples/%s.yaml, manifests/values-%s.yaml.\n' $name $name
      printf '# Put your registry in the place of registry.hospital.example, your namespace in that of clinical-r1; compiled\n'
      printf '# pipelines are in manifests/pipelines.\n'
      template --skip-tests --values "$CHART/examples/$name.yaml" --values "manifests/values-$name.yaml" \
        --set kubeflow.register.mode=none
    } > "$1/.$name.tmp"
    mv "$1/.$name.tmp" "$1/$name.yaml"
  done
}

if [ "${1:-}" != check ]; then
  "$PYTHON" helm/generate.py
  mkdir -p manifests/rendered
  manifests manifests/rendered
  exit 0
fi

SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
SCHEMAS=$("$PYTHON" -m tests.chart.schemas)
LOCATION="$SCHEMAS/{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"
for path in "$CHART"/examples/*.yaml; do
  name=$(basename "$path" .yaml)
  quietly lint --strict --quiet "$CHART" --values "$path" > "$SCRATCH/lint" || { cat "$SCRATCH/lint"; exit 1; }
  template --values "$path" --set $MODEL --set serving.gateway.sampling.rate=0.01 > "$SCRATCH/example-$name.yaml"
  echo "helm lint --strict, helm template: $name"
done
template --values "$CHART/examples/one-gpu.yaml" --set $MODEL --set serving.kind=LLMInferenceService > "$SCRATCH/example-llm.yaml"
manifests "$SCRATCH"
for name in one-gpu production; do
  diff -u "manifests/rendered/$name.yaml" "$SCRATCH/$name.yaml" > "$SCRATCH/$name.diff" || {
    head -40 "$SCRATCH/$name.diff"
    echo "error: manifests/rendered/$name.yaml is not what the chart renders; run make manifests" >&2
    exit 1
  }
done
"$TOOLS/kubeconform" -strict -summary -schema-location "$LOCATION" "$SCRATCH"/*.yaml
if grep -n '^kind: Secret' "$SCRATCH/one-gpu.yaml" "$SCRATCH/production.yaml" "$SCRATCH/example-production.yaml"; then
  echo "error: a Secret in manifests that are not to hold any" >&2
  exit 1
fi
