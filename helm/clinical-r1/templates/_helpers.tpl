{{/* Prefix of all names. Kubernetes wants names of Services to begin with a letter and to hold no dot, and they get suffixes of
     ours: a release's name that is too long or of another form is put right, and keeps a hash so that no two collide. */}}
{{- define "clinical-r1.name" -}}
{{- $given := default .Release.Name .Values.fullnameOverride -}}
{{- if regexMatch "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$" $given -}}
{{- $given -}}
{{- else -}}
{{- $safe := regexReplaceAll "[^a-z0-9-]" $given "-" -}}
{{- if not (regexMatch "^[a-z]" $safe) -}}{{- $safe = printf "r%s" $safe -}}{{- end -}}
{{- printf "%s-%s" ($safe | trunc 31 | trimSuffix "-") (sha256sum $given | trunc 8) -}}
{{- end -}}
{{- end -}}

{{- define "clinical-r1.selector" -}}
app.kubernetes.io/name: clinical-r1
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "clinical-r1.labels" -}}
{{ include "clinical-r1.selector" . }}
app.kubernetes.io/part-of: clinical-r1
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* Labels of a pod: (list $ "component") */}}
{{- define "clinical-r1.podLabels" -}}
{{ include "clinical-r1.selector" (index . 0) }}
app.kubernetes.io/part-of: clinical-r1
app.kubernetes.io/component: {{ index . 1 | quote }}
sidecar.istio.io/inject: "false"
{{- end -}}

{{/* An image by its key under .Values.images: (list $ "gateway") */}}
{{- define "clinical-r1.image" -}}
{{- $ctx := index . 0 -}}{{- $image := index $ctx.Values.images (index . 1) -}}
{{- $registry := required "global.imageRegistry is empty: this project publishes no images; build and push them (docs/install.md, step 2) and set global.imageRegistry to your registry, or to localhost for images that lie on the node" $ctx.Values.global.imageRegistry -}}
{{- if $image.digest -}}
{{ printf "%s/%s@%s" $registry $image.repository $image.digest }}
{{- else -}}
{{ printf "%s/%s:%s" $registry $image.repository (default $ctx.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{- define "clinical-r1.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Restricted pod security, for pods and for containers. */}}
{{- define "clinical-r1.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "clinical-r1.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Is an optional part on? (dict "ctx" $ "key" "serving.enabled" "value" .. "api" "group/version/Kind" "fix" "..")
     Gives "true" or nothing. `true` without the resource type stops the installation with a message. */}}
{{- define "clinical-r1.on" -}}
{{- $has := .ctx.Capabilities.APIVersions.Has .api -}}
{{- if eq (toString .value) "auto" -}}
{{- if $has -}}true{{- end -}}
{{- else if .value -}}
{{- if not $has -}}
{{- $off := ternary (printf ", or set %s=false" .key) "" (hasSuffix ".enabled" .key) -}}
{{- fail (printf "%s needs %s, which this cluster does not have: %s%s. (With `helm template`, say what the cluster has: --api-versions %s)" .key .api .fix $off .api) -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{- define "clinical-r1.servingOn" -}}
{{- include "clinical-r1.on" (dict "ctx" . "key" "serving.enabled" "value" .Values.serving.enabled "api" "serving.kserve.io/v1beta1/InferenceService" "fix" "install KServe 0.20 or newer (docs/install.md, step 1)") -}}
{{- end -}}
{{- define "clinical-r1.trainingOn" -}}
{{- include "clinical-r1.on" (dict "ctx" . "key" "training.runtime.enabled" "value" .Values.training.runtime.enabled "api" "trainer.kubeflow.org/v1alpha1/TrainingRuntime" "fix" "install Kubeflow Trainer 2.3 or newer (docs/install.md, step 1)") -}}
{{- end -}}
{{- define "clinical-r1.podMonitorOn" -}}
{{- include "clinical-r1.on" (dict "ctx" . "key" "monitoring.podMonitor.enabled" "value" .Values.monitoring.podMonitor.enabled "api" "monitoring.coreos.com/v1/PodMonitor" "fix" "install the Prometheus operator") -}}
{{- end -}}
{{- define "clinical-r1.rulesOn" -}}
{{- include "clinical-r1.on" (dict "ctx" . "key" "monitoring.rules.enabled" "value" .Values.monitoring.rules.enabled "api" "monitoring.coreos.com/v1/PrometheusRule" "fix" "install the Prometheus operator") -}}
{{- end -}}

{{/* The object store. */}}
{{- define "clinical-r1.storeUsers" -}}records traces journal models reports pipelines audit serving{{- end -}}

{{- define "clinical-r1.storeUrl" -}}
{{- if eq .Values.objectStore.mode "minio" -}}
{{ ternary "http" "https" (eq .Values.objectStore.minio.tls.mode "none") }}://{{ include "clinical-r1.name" . }}-minio.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{ .Values.objectStore.endpoint | trimSuffix "/" }}
{{- end -}}
{{- end -}}

{{- define "clinical-r1.storeHost" -}}
{{- regexReplaceAll "^https?://" (include "clinical-r1.storeUrl" .) "" -}}
{{- end -}}

{{- define "clinical-r1.storeTls" -}}
{{- if hasPrefix "https://" (include "clinical-r1.storeUrl" .) -}}true{{- end -}}
{{- end -}}

{{- define "clinical-r1.storePort" -}}
{{- $host := include "clinical-r1.storeHost" . -}}
{{- if contains ":" $host -}}{{ last (splitList ":" $host) }}{{- else -}}{{ ternary "443" "80" (eq (include "clinical-r1.storeTls" .) "true") }}{{- end -}}
{{- end -}}

{{/* The namespace of a store that is a Service of this cluster (http://NAME.NAMESPACE.svc...), or nothing. Policies see pods behind
     a Service, not its address. */}}
{{- define "clinical-r1.storeNamespace" -}}
{{- $host := regexReplaceAll ":[0-9]+$" (include "clinical-r1.storeHost" .) "" -}}
{{- if regexMatch "^[^.]+\\.[^.]+\\.svc(\\.|$)" $host -}}{{ index (splitList "." $host) 1 }}{{- end -}}
{{- end -}}

{{/* Name of a store user's Secret: (list $ "models") */}}
{{- define "clinical-r1.storeSecret" -}}
{{- $ctx := index . 0 -}}{{- $user := index . 1 -}}
{{- $named := index $ctx.Values.objectStore.existingSecrets $user -}}
{{- if $named -}}{{ $named }}
{{- else if $ctx.Values.objectStore.existingSecret -}}{{ $ctx.Values.objectStore.existingSecret }}
{{- else -}}{{ include "clinical-r1.name" $ctx }}-store-{{ $user }}
{{- end -}}
{{- end -}}

{{- define "clinical-r1.rootSecret" -}}
{{- default (printf "%s-minio-root" (include "clinical-r1.name" .)) .Values.objectStore.minio.existingSecret -}}
{{- end -}}

{{- define "clinical-r1.tlsSecret" -}}
{{- if eq .Values.objectStore.minio.tls.mode "existing" -}}{{ .Values.objectStore.minio.tls.secret }}{{- else -}}{{ include "clinical-r1.name" . }}-minio-tls{{- end -}}
{{- end -}}

{{/* ConfigMap with the authorities of the store, or nothing. */}}
{{- define "clinical-r1.caConfigMap" -}}
{{- $store := .Values.objectStore -}}
{{- if $store.caBundle.configMap -}}{{ $store.caBundle.configMap }}
{{- else if and (eq $store.mode "minio") (eq $store.minio.tls.mode "generated") -}}{{ include "clinical-r1.name" . }}-ca
{{- end -}}
{{- end -}}

{{/* What pipeline steps mount: the authorities of the store, or an empty ConfigMap of ours where the images know them. */}}
{{- define "clinical-r1.stepsCa" -}}
{{- default (printf "%s-ca" (include "clinical-r1.name" .)) (include "clinical-r1.caConfigMap" .) -}}
{{- end -}}

{{- define "clinical-r1.caKey" -}}
{{- if .Values.objectStore.caBundle.configMap -}}{{ .Values.objectStore.caBundle.key }}{{- else -}}ca.crt{{- end -}}
{{- end -}}

{{- define "clinical-r1.kubeflowAccount" -}}
{{- default (ternary "default-editor" "pipeline-runner" (eq .Values.kubeflow.mode "multiuser")) .Values.kubeflow.serviceAccountName -}}
{{- end -}}

{{/* The claim that the steps of a run share. */}}
{{- define "clinical-r1.stateClaim" -}}
{{- default (printf "%s-state" (include "clinical-r1.name" .)) .Values.kubeflow.state.existingClaim -}}
{{- end -}}

{{/* Secrets that steps read as variables: the keys of endpoints, and the key that hashes patients. */}}
{{- define "clinical-r1.endpointSecret" -}}
{{- default (printf "%s-endpoints" (include "clinical-r1.name" .)) .Values.kubeflow.endpointSecret -}}
{{- end -}}

{{- define "clinical-r1.patientSecret" -}}
{{- default (printf "%s-patient-key" (include "clinical-r1.name" .)) .Values.kubeflow.patientSecret -}}
{{- end -}}

{{/* Run parameters of every pipeline that name things of this installation, as JSON. The registered pipelines carry them as
     defaults, and `clinical-r1 submit` reads them from the ConfigMap clinical-r1-platform. None may be empty: Kubeflow's driver
     refuses an empty name. Kubernetes goes on without a pull Secret that is not there. */}}
{{- define "clinical-r1.runParameters" -}}
{{- dict
  "image" (include "clinical-r1.image" (list . "trainer"))
  "image_pull_secret" (first (concat .Values.global.imagePullSecrets (list (printf "%s-pull" (include "clinical-r1.name" .)))))
  "claim" (include "clinical-r1.stateClaim" .)
  "store_secret" (include "clinical-r1.storeSecret" (list . "pipelines"))
  "endpoint_secret" (include "clinical-r1.endpointSecret" .)
  "patient_secret" (include "clinical-r1.patientSecret" .)
  "client_key_secret" (default (printf "%s-first-client" (include "clinical-r1.name" .)) .Values.serving.gateway.testKeySecret)
  "ca_config_map" (include "clinical-r1.stepsCa" .) | toJson -}}
{{- end -}}

{{- define "clinical-r1.keysSecret" -}}
{{- default (printf "%s-gateway-keys" (include "clinical-r1.name" .)) .Values.serving.gateway.existingSecret -}}
{{- end -}}

{{/* What survives an upgrade of a Secret that the chart made: the values in the cluster win over new random ones.
     (dict "ctx" $ "name" NAME "data" (dict key plain-text...)) */}}
{{- define "clinical-r1.keptSecret" -}}
{{- $old := (lookup "v1" "Secret" .ctx.Release.Namespace .name) | default dict -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name | quote }}
  namespace: {{ .ctx.Release.Namespace | quote }}
  labels:
    {{- include "clinical-r1.labels" .ctx | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
    {{- with .annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
type: {{ default "Opaque" .type | quote }}
data:
{{- if $old.data }}
  {{- toYaml $old.data | nindent 2 }}
{{- else }}
{{- range $key, $value := .data }}
  {{ $key }}: {{ $value | b64enc | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* How pipelines come into the dashboard: job, crd or none. `auto` is the job where Kubeflow Pipelines can be seen. */}}
{{- define "clinical-r1.registerMode" -}}
{{- $register := .Values.kubeflow.register -}}
{{- if not .Values.kubeflow.enabled -}}none
{{- else if ne $register.mode "auto" -}}{{ $register.mode }}
{{- else if or $register.endpoint (lookup "v1" "Service" .Values.kubeflow.namespace "ml-pipeline") -}}job
{{- else -}}none
{{- end -}}
{{- end -}}

{{/* A compiled pipeline with this installation's names as the defaults of its run parameters: (list $ TEXT). The places are
     those that kfp's compiler writes at the root of a pipeline; tests/chart resolves every reference of the result. */}}
{{- define "clinical-r1.pipeline" -}}
{{- $text := index . 1 -}}
{{- range $parameter, $value := include "clinical-r1.runParameters" (index . 0) | fromJson -}}
{{- $place := printf "\n      %s:\n        defaultValue: " $parameter -}}
{{- $text = regexReplaceAllLiteral (printf "%s[^\n]*" $place) $text (printf "%s%s" $place (toJson $value)) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{- define "clinical-r1.kubeflowApi" -}}
{{- default (printf "http://ml-pipeline.%s.svc:8888" .Values.kubeflow.namespace) .Values.kubeflow.register.endpoint -}}
{{- end -}}
