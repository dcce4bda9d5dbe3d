{{/* The InferenceService: (dict "ctx" $ "uri" URI "version" VERSION "name" NAME-OF-THE-PREDICTOR "traffic" on|off); the ConfigMap
     clinical-r1-platform holds it without a model, for the step `deploy` of a pipeline. */}}
{{- define "clinical-r1.inferenceService" -}}
{{- $name := include "clinical-r1.name" .ctx -}}
{{- $serving := .ctx.Values.serving -}}
{{- $scaled := $serving.autoscaling.enabled -}}
{{- $times := default dict (default dict $serving.gateway.config).timeouts -}}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {{ $serving.name | quote }}
  namespace: {{ $.ctx.Release.Namespace | quote }}
  labels:
    {{- include "clinical-r1.labels" $.ctx | nindent 4 }}
  annotations:
    serving.kserve.io/deploymentMode: Standard
    serving.kserve.io/autoscalerClass: {{ ternary "keda" "none" $scaled | quote }}
    sidecar.istio.io/inject: "false"
    clinical-r1/rollout-mode: {{ $serving.rollout.mode | quote }}
    clinical-r1/rollout-min-requests: {{ $serving.rollout.minRequests | quote }}
spec:
  predictor:
    {{- with .name }}
    name: {{ . | quote }}
    {{- end }}
    minReplicas: {{ $serving.replicas.min }}
    maxReplicas: {{ ternary $serving.replicas.max $serving.replicas.min $scaled }}
    labels:
      app.kubernetes.io/part-of: clinical-r1
      app.kubernetes.io/component: serving
      sidecar.istio.io/inject: "false"
      clinical-r1/traffic: {{ default "on" .traffic | quote }}
      {{- with $serving.queue }}
      kueue.x-k8s.io/queue-name: {{ . | quote }}
      {{- end }}
    annotations:
      clinical-r1/model-version: {{ .version | quote }}
      # A changed gateway configuration restarts the pods, one after the other.
      clinical-r1/gateway-config: {{ toJson $serving.gateway | sha256sum | trunc 16 | quote }}
    deploymentStrategy:
      {{- if eq $serving.rollout.mode "replace" }}
      type: Recreate
      {{- else }}
      type: RollingUpdate
      rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
      {{- end }}
    {{- if $scaled }}
    autoScaling:
      metrics:
        - type: External
          external:
            metric:
              backend: prometheus
              serverAddress: {{ $serving.autoscaling.prometheus | quote }}
              query: {{ printf "sum(clinical_r1_in_flight{namespace=\"%s\",pod=~\"%s-.*predictor-.*\"})" $.ctx.Release.Namespace $serving.name | quote }}
            target: { type: Value, value: {{ $serving.autoscaling.inFlight | quote }} }
    {{- end }}
    serviceAccountName: {{ $name }}-serving
    automountServiceAccountToken: false
    enableServiceLinks: false
    # Unready for `settle`, then running answers end within `drain`.
    terminationGracePeriodSeconds: {{ add (int (default 5 $times.settle)) (int (default 60 $times.drain)) 25 }}
    {{- include "clinical-r1.pullSecrets" $.ctx | nindent 4 }}
    {{- with $serving.priorityClassName }}
    priorityClassName: {{ . | quote }}
    {{- end }}
    {{- with $serving.runtimeClassName }}
    runtimeClassName: {{ . | quote }}
    {{- end }}
    {{- with $serving.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $serving.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "clinical-r1.podSecurity" $.ctx | nindent 6 }}
    model:
      modelFormat: { name: clinical-r1, version: "1" }
      runtime: "{{ $name }}-{{ $serving.engine.kind }}"
      {{- with .uri }}
      storageUri: {{ . | quote }}
      {{- end }}
{{- end -}}

{{/* The same as JSON, with the marks by which the next `helm upgrade` takes over what a pipeline made. */}}
{{- define "clinical-r1.servedManifest" -}}
{{- if and (include "clinical-r1.servingOn" .) (eq .Values.serving.kind "InferenceService") -}}
{{- $made := include "clinical-r1.inferenceService" (dict "ctx" . "uri" "" "version" "" "name" "") | fromYaml -}}
{{- $_ := set $made.metadata.annotations "meta.helm.sh/release-name" .Release.Name -}}
{{- $_ := set $made.metadata.annotations "meta.helm.sh/release-namespace" .Release.Namespace -}}
{{- toJson $made -}}
{{- end -}}
{{- end -}}
