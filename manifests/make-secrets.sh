#!/usr/bin/env bash
# Random Secrets for manifests/rendered/one-gpu.yaml, as YAML on standard output; nothing is stored anywhere else:
#   manifests/make-secrets.sh NAMESPACE | kubectl apply -f -
# Run it once: a second run makes other passwords. The first client's API key is in Secret clinical-r1-first-client.
set -euo pipefail
NAMESPACE=${1:?which namespace? manifests/make-secrets.sh NAMESPACE | kubectl apply -f -}
HOST=clinical-r1-minio
umask 077
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

random() { openssl rand -hex "${1:-20}"; }
encode() { openssl base64 -A; }
secret() { # secret NAME TYPE ANNOTATIONS KEY=VALUE...
  local name=$1 type=$2 annotations=$3 pair
  shift 3
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\n' "$name" "$NAMESPACE"
  [ -z "$annotations" ] || printf '  annotations:\n%s\n' "$annotations"
  printf 'type: %s\ndata:\n' "$type"
  for pair in "$@"; do printf '  %s: %s\n' "${pair%%=*}" "$(printf '%s' "${pair#*=}" | encode)"; done
}

secret clinical-r1-minio-root Opaque "" "rootUser=root-$(random 4)" "rootPassword=$(random)"
for user in records traces journal models reports pipelines audit; do
  secret "clinical-r1-store-$user" Opaque "" "AWS_ACCESS_KEY_ID=clinical-r1-$user" "AWS_SECRET_ACCESS_KEY=$(random)"
done
secret clinical-r1-store-serving Opaque "\
    serving.kserve.io/s3-endpoint: $HOST.$NAMESPACE.svc:9000
    serving.kserve.io/s3-usehttps: \"1\"
    serving.kserve.io/s3-verifyssl: \"1\"
    serving.kserve.io/s3-region: us-east-1
    serving.kserve.io/s3-cabundle-configmap: clinical-r1-ca
    serving.kserve.io/s3-cabundle: /etc/ssl/custom-certs/ca.crt" \
  "AWS_ACCESS_KEY_ID=clinical-r1-serving" "AWS_SECRET_ACCESS_KEY=$(random)"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 3650 -subj /CN=clinical-r1-ca \
  -keyout "$WORK/ca.key" -out "$WORK/ca.crt" 2>/dev/null
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "/CN=$HOST.$NAMESPACE.svc" \
  -keyout "$WORK/tls.key" -out "$WORK/tls.csr" 2>/dev/null
NAMES="DNS:$HOST,DNS:$HOST.$NAMESPACE,DNS:$HOST.$NAMESPACE.svc,DNS:$HOST.$NAMESPACE.svc.cluster.local"
openssl x509 -req -in "$WORK/tls.csr" -CA "$WORK/ca.crt" -CAkey "$WORK/ca.key" -CAcreateserial -days 3650 -sha256 \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$NAMES") -out "$WORK/tls.crt" 2>/dev/null
secret clinical-r1-minio-tls kubernetes.io/tls "" \
  "tls.crt=$(cat "$WORK/tls.crt")" "tls.key=$(cat "$WORK/tls.key")" "ca.crt=$(cat "$WORK/ca.crt")"
printf -- '---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: clinical-r1-ca\n  namespace: %s\ndata:\n  ca.crt: |\n' "$NAMESPACE"
sed 's/^/    /' "$WORK/ca.crt"

secret clinical-r1-patient-key Opaque "" "CLINICAL_R1_PATIENT_KEY=$(random 32)"
KEY=cr1-$(random 32)
HASH=$(printf '%s' "$KEY" | openssl dgst -sha256 -r | cut -d' ' -f1)
secret clinical-r1-gateway-keys Opaque "" "keys=first-client sha256:$HASH"
secret clinical-r1-first-client Opaque "" "key=$KEY"
