#!/usr/bin/env bash
# Kubeflow Pipelines' own server and dashboard for one installation of the chart (docs/install.md, step 6):
#   manifests/kubeflow/server.sh NAMESPACE [--dry-run]
# NAMESPACE is the chart's; where the store is and who signed its certificate stands in its ConfigMap. What it changes:
#   deployment/ml-pipeline     every step trusts the store's authority (the launcher in it reads and writes artifacts)
#   deployment/ml-pipeline-ui  shows artifacts from our store: its address and Secret clinical-r1-dashboard where the dashboard
#                              is in another namespace, and the authority
# The server's own store, its Secret mlpipeline-minio-artifact and Argo's log archive stay as they are. It may be run again.
set -euo pipefail
NAMESPACE=${1:?which namespace? manifests/kubeflow/server.sh NAMESPACE [--dry-run]}
RUN=(kubectl)
[ "${2:-}" != --dry-run ] || RUN=(echo kubectl)

get() { kubectl -n "$NAMESPACE" get "$@"; }
fact() { get configmap clinical-r1-platform -o "jsonpath={.data.$1}"; }
parameter() { fact CLINICAL_R1_RUN_PARAMETERS | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
SERVER=$(fact CLINICAL_R1_KUBEFLOW_NAMESPACE) || true
[ -n "$SERVER" ] || { echo "error: no ConfigMap clinical-r1-platform in namespace $NAMESPACE: install the chart first" >&2; exit 2; }
URL=$(fact AWS_ENDPOINT_URL) KEY=$(fact CLINICAL_R1_CA_KEY) CA=$(parameter ca_config_map) STORE=$(parameter store_secret)
ADDRESS=${URL#*://} SCHEME=${URL%%:*}
HOST=${ADDRESS%:*} PORT=${ADDRESS##*:}
[ "$PORT" != "$ADDRESS" ] || PORT=$([ "$SCHEME" = https ] && echo 443 || echo 80)
AUTHORITY=$(get configmap "$CA" -o "go-template={{ index .data \"$KEY\" }}" 2>/dev/null | grep -v '^<no value>$' || true)

if [ "$SERVER" != "$NAMESPACE" ]; then
  secret() { get secret "$STORE" -o "jsonpath={.data.$1}"; }
  # Through a pipe: keys on a command line could be seen by others.
  printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: clinical-r1-dashboard, namespace: %s }\ndata: { access_key: %s, secret_key: %s }\n' \
    "$SERVER" "$(secret AWS_ACCESS_KEY_ID)" "$(secret AWS_SECRET_ACCESS_KEY)" | "${RUN[@]}" apply -f -
  "${RUN[@]}" -n "$SERVER" set env deployment/ml-pipeline-ui --from=secret/clinical-r1-dashboard --prefix=MINIO_
  "${RUN[@]}" -n "$SERVER" set env deployment/ml-pipeline-ui "MINIO_HOST=$HOST" "MINIO_PORT=$PORT" MINIO_NAMESPACE= \
    "MINIO_SSL=$([ "$SCHEME" = https ] && echo true || echo false)"
fi
if [ "$SCHEME" = https ] && [ -n "$AUTHORITY" ]; then
  "${RUN[@]}" -n "$SERVER" set env deployment/ml-pipeline "CABUNDLE_CONFIGMAP_NAME=$CA" "CABUNDLE_KEY_NAME=$KEY"
  kubectl -n "$SERVER" create configmap clinical-r1-authority --from-literal "ca.crt=$AUTHORITY" --dry-run=client -o yaml |
    "${RUN[@]}" apply -f -
  "${RUN[@]}" -n "$SERVER" patch deployment ml-pipeline-ui --patch '{"spec": {"template": {"spec": {
    "volumes": [{"name": "clinical-r1-authority", "configMap": {"name": "clinical-r1-authority"}}],
    "containers": [{"name": "ml-pipeline-ui",
      "env": [{"name": "NODE_EXTRA_CA_CERTS", "value": "/etc/clinical-r1/ca.crt"}],
      "volumeMounts": [{"name": "clinical-r1-authority", "mountPath": "/etc/clinical-r1", "readOnly": true}]}]}}}}'
fi
echo "done; check with: clinical-r1 doctor --namespace $NAMESPACE"
