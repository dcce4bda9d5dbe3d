#!/usr/bin/env bash
# Builds the programs that check the chart from their Go modules, once, into a cache folder keyed by version:
#   tests/chart/tools.sh          prints the folder (on its last line) when helm and kubeconform lie in it
# What is there already is not built again. Each build may take BUILD_SECONDS; then it is given up, visibly.
set -euo pipefail
HELM_VERSION=v3.22.0
KUBECONFORM_VERSION=v0.8.0
KUBERNETES_MINOR=34
BUILD_SECONDS=${BUILD_SECONDS:-900}
CACHE=${CLINICAL_R1_CACHE:-$HOME/.cache/clinical-r1}
FOLDER=$CACHE/chart-tools-helm-$HELM_VERSION-kubeconform-$KUBECONFORM_VERSION-k8s-1.$KUBERNETES_MINOR
mkdir -p "$FOLDER"

build() { # build NAME PACKAGE VERSION [LDFLAGS]
  [ ! -x "$FOLDER/$1" ] || return 0
  command -v go >/dev/null || { echo "error: go is not installed; install Go 1.24 or newer to check the chart" >&2; exit 2; }
  echo "building $1 $3 from its Go module (at most $BUILD_SECONDS s)" >&2
  local scratch deadline=$((SECONDS + BUILD_SECONDS)) try
  scratch=$(mktemp -d "$FOLDER/.build-XXXXXX")
  for try in 1 2 3; do # a module proxy hiccups now and then
    if (cd "$scratch" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOBIN=$scratch timeout $((deadline - SECONDS)) \
      go install -trimpath -ldflags "-s -w ${4:-}" "$2@$3" >&2); then
      mv "$scratch/$1" "$FOLDER/$1" # a program is there whole or not at all
      break
    fi
    [ $((deadline - SECONDS)) -gt 10 ] || break
    sleep $((try * 5))
  done
  rm -rf "$scratch"
  [ -x "$FOLDER/$1" ] || { echo "error: $1 $3 was not built (its messages are above); with more time: BUILD_SECONDS=3600" >&2; exit 3; }
}

build kubeconform github.com/yannh/kubeconform/cmd/kubeconform $KUBECONFORM_VERSION
# Helm's releases carry the Kubernetes version that `helm template` and `helm lint` assume; a plain build says 1.20.
build helm helm.sh/helm/v3/cmd/helm $HELM_VERSION "-X helm.sh/helm/v3/internal/version.version=$HELM_VERSION \
  -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$KUBERNETES_MINOR \
  -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$KUBERNETES_MINOR"
echo "$FOLDER"
