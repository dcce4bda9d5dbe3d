#!/usr/bin/env bash
# Images of this project, with buildah (root, no daemon):
#   components/images.sh list              every image to mirror: ours, and those of others that the chart or KServe pull
#   components/images.sh build [NAME...]   trainer, gateway, initializer (KServe's, for test clusters); default: the first two
# IMAGE_REGISTRY and IMAGE_TAG name the result, BASE is any image with Python 3.11 (by digest for a release); without BASE
# a Debian 12 is made with debootstrap. BUILD_FLAGS goes to buildah, such as --build-arg PIP_INDEX_URL=...
# IMAGE_CA is a PEM file of the authorities that pip trusts while it builds, for a proxy or mirror with its own; it does
# not stay in the image.
set -euo pipefail
cd "$(dirname "$0")/.."
REGISTRY=${IMAGE_REGISTRY:-localhost}
TAG=${IMAGE_TAG:-$(sed -n 's/^__version__ = "\(.*\)"/\1/p' clinical_r1/__init__.py)}
KSERVE=v0.20.0

list() {
  sed -n '/^images:/,/^[a-z]/{s/^ .*repository: \([^,]*\), tag: \("[^"]*"\|[^,]*\),.*/\1 \2/p}' helm/clinical-r1/values.yaml |
    while read -r repository tag; do
      tag=${tag//\"/}
      [ -z "$tag" ] && echo "$REGISTRY/$repository:$TAG" || echo "$repository:$tag"
    done
  echo "kserve/storage-initializer:$KSERVE"
  echo "${BASE:-python:3.11-slim-bookworm}"
}

build() { # build NAME FILE CONTEXT
  local trust=()
  if [ -n "${IMAGE_CA:-}" ]; then
    [ -r "$IMAGE_CA" ] || { echo "error: IMAGE_CA: cannot read $IMAGE_CA: name a PEM file of authorities" >&2; exit 2; }
    trust=(--volume "$(realpath "$IMAGE_CA"):/run/build-ca.crt:ro" --build-arg PIP_CERT=/run/build-ca.crt)
  fi
  echo "building $1" >&2
  # shellcheck disable=SC2086
  buildah build --isolation chroot --layers --format docker --build-arg "BASE=$BASE" --build-arg "VERSION=$TAG" \
    --build-arg "REVISION=$(git rev-parse --short HEAD)" "${trust[@]}" ${BUILD_FLAGS:-} --file "$2" --tag "$1" "$3" >&2
}

report() { # report NAME MODULES: size, and how long Python takes to import what the image is for
  local container start seconds bytes
  container=$(buildah from "$1")
  start=$(date +%s.%N)
  buildah run --isolation chroot "$container" -- python3 -c "import $2"
  seconds=$(echo "$(date +%s.%N) - $start" | bc)
  bytes=$(buildah images --json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["size"])')
  buildah rm "$container" >/dev/null
  printf '%s  %s  import %s: %.1f s\n' "$1" "$bytes" "$2" "$seconds"
}

case ${1:-} in
  list) list ;;
  build)
    shift
    if [ -z "${BASE:-}" ]; then
      BASE=localhost/clinical-r1/base:bookworm
      components/base_image.sh "$BASE" >&2
    fi
    for name in "${@:-trainer gateway}"; do
      for image in $name; do
        case $image in
          trainer)
            build "$REGISTRY/clinical-r1/trainer:$TAG" components/Containerfile .
            report "$REGISTRY/clinical-r1/trainer:$TAG" "torch, transformers, deepspeed, kfp, clinical_r1"
            ;;
          gateway)
            build "$REGISTRY/clinical-r1/gateway:$TAG" serving/Containerfile .
            report "$REGISTRY/clinical-r1/gateway:$TAG" "serving.gateway.server"
            ;;
          initializer)
            module=$(cd / && go mod download -json "github.com/kserve/kserve@$KSERVE" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
            build "$REGISTRY/kserve/storage-initializer:$KSERVE" tests/cluster/storage-initializer.Containerfile "$module/python"
            report "$REGISTRY/kserve/storage-initializer:$KSERVE" "kserve_storage"
            ;;
          *) echo "error: no image is called $image; there are trainer, gateway and initializer" >&2; exit 2 ;;
        esac
      done
    done
    ;;
  *) sed -n '2,8s/^# //p' "$0"; exit 2 ;;
esac
