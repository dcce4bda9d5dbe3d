{{- define "clinical-r1.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "clinical-r1.selector" -}}
app.kubernetes.io/name: clinical-r1
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "clinical-r1.labels" -}}
{{ include "clinical-r1.selector" . }}
app.kubernetes.io/part-of: clinical-r1
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels of a pod: (list $ "component") */}}
{{- define "clinical-r1.podLabels" -}}
{{ include "clinical-r1.selector" (index . 0) }}
app.kubernetes.io/part-of: clinical-r1
app.kubernetes.io/component: {{ index . 1 }}
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
  - name: {{ . }}
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

{{- define "clinical-r1.caKey" -}}
{{- if .Values.objectStore.caBundle.configMap -}}{{ .Values.objectStore.caBundle.key }}{{- else -}}ca.crt{{- end -}}
{{- end -}}

{{- define "clinical-r1.kubeflowAccount" -}}
{{- default (ternary "default-editor" "pipeline-runner" (eq .Values.kubeflow.mode "multiuser")) .Values.kubeflow.serviceAccountName -}}
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
  name: {{ .name }}
  namespace: {{ .ctx.Release.Namespace }}
  labels:
    {{- include "clinical-r1.labels" .ctx | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
    {{- with .annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
type: {{ default "Opaque" .type }}
data:
{{- if $old.data }}
  {{- toYaml $old.data | nindent 2 }}
{{- else }}
{{- range $key, $value := .data }}
  {{ $key }}: {{ $value | b64enc | quote }}
{{- end }}
{{- end }}
{{- end -}}
