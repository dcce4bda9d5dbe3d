#!/usr/bin/env bash
# Makes a base image without any image registry: Debian 12 with its Python 3.11, from Debian's own packages.
#   components/base_image.sh NAME        (root; needs debootstrap and buildah)
set -euo pipefail
NAME=${1:?name of the image, such as localhost/clinical-r1/base:bookworm}
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
if buildah inspect --type image "$NAME" >/dev/null 2>&1; then
  echo "$NAME is there already"
  exit 0
fi
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python3-dev,python-is-python3,g++,ca-certificates bookworm "$SCRATCH/root" "$MIRROR" \
  >"$SCRATCH/log" || { tail -20 "$SCRATCH/log" >&2; exit 1; }
rm -rf "$SCRATCH"/root/var/cache/apt/archives/*.deb "$SCRATCH"/root/var/lib/apt/lists/*
CONTAINER=$(buildah from scratch)
buildah add --quiet "$CONTAINER" "$SCRATCH/root" / >/dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3 "$CONTAINER"
buildah commit --quiet --rm "$CONTAINER" "$NAME" >/dev/null
echo "$NAME"
