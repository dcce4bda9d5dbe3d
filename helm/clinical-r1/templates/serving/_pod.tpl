{{/* Containers and volumes of a serving pod: the engine on loopback, the gateway in front. */}}
{{- define "clinical-r1.servingPod" -}}
{{- $name := include "clinical-r1.name" . -}}
{{- $serving := .Values.serving -}}
{{- $engine := $serving.engine -}}
{{- $config := default dict $serving.gateway.config -}}
{{- $times := default dict $config.timeouts -}}
{{- $settle := default 5 $times.settle -}}
{{- $drain := default 60 $times.drain -}}
{{- $samples := gt (float64 $serving.gateway.sampling.rate) 0.0 -}}
{{- $image := ternary "vllm" "trainer" (eq $engine.kind "vllm") -}}
containers:
  # The engine, on loopback: nobody reaches it but through the gateway.
  - name: kserve-container
    image: {{ include "clinical-r1.image" (list . $image) | quote }}
    imagePullPolicy: {{ (index .Values.images $image).pullPolicy | quote }}
    {{- if eq $engine.kind "vllm" }}
    command: [python3, -m, vllm.entrypoints.openai.api_server]
    args:
      - --model=/mnt/models
      - --served-model-name={{ $serving.name }}
      - --host=127.0.0.1
      - --port=8000
      - --generation-config=vllm
      {{- range $engine.args }}
      - {{ . | quote }}
      {{- end }}
    {{- else }}
    command: [python3, -m, serving.engine]
    args:
      - --model=/mnt/models
      - --name={{ $serving.name }}
      - --host=127.0.0.1
      - --port=8000
      {{- range $engine.args }}
      - {{ . | quote }}
      {{- end }}
    {{- end }}
    env:
      - { name: HOME, value: /cache }
      - { name: USER, value: engine }
      - { name: HF_HOME, value: /cache/huggingface }
      - { name: HF_HUB_OFFLINE, value: "1" }
      - { name: TRANSFORMERS_OFFLINE, value: "1" }
      - { name: TRITON_CACHE_DIR, value: /cache/triton }
      - { name: TORCHINDUCTOR_CACHE_DIR, value: /cache/inductor }
      - { name: VLLM_CACHE_ROOT, value: /cache/vllm }
      - { name: VLLM_NO_USAGE_STATS, value: "1" }
      - { name: DO_NOT_TRACK, value: "1" }
      - { name: TOKENIZERS_PARALLELISM, value: "false" }
      {{- with $engine.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    startupProbe:
      exec:
        command: [python3, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=8)"]
      periodSeconds: 5
      timeoutSeconds: 10
      failureThreshold: {{ div $engine.startupSeconds 5 }}
    livenessProbe:
      exec:
        command: [python3, -c, "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=15)"]
      periodSeconds: 30
      timeoutSeconds: 20
      failureThreshold: 6
    # The gateway asks the engine every second; kubelet cannot reach the engine's loopback.
    readinessProbe:
      httpGet: { path: /healthz/ready, port: 8080 }
      periodSeconds: 5
      timeoutSeconds: 5
    # The engine stays until the gateway has let the running answers end.
    lifecycle:
      preStop:
        exec:
          command: [python3, /etc/clinical-r1/gateway/drain.py, {{ $settle | quote }}, {{ $drain | quote }}]
    resources:
      {{- toYaml $engine.resources | nindent 6 }}
    securityContext:
      {{- include "clinical-r1.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - { name: cache, mountPath: /cache }
      - { name: tmp, mountPath: /tmp }
      - { name: shm, mountPath: /dev/shm }
      - { name: gateway, mountPath: /etc/clinical-r1/gateway, readOnly: true }
  # The gateway; KServe's Service targets this container's port.
  - name: transformer-container
    image: {{ include "clinical-r1.image" (list . "gateway") | quote }}
    imagePullPolicy: {{ .Values.images.gateway.pullPolicy | quote }}
    command: [python3, -m, serving.gateway]
    args: [--config=/etc/clinical-r1/gateway/gateway.yaml, --model-version=$(MODEL_VERSION)]
    env:
      # Set by the chart and, for every version that it brings, by the rollout.
      - name: MODEL_VERSION
        valueFrom: { fieldRef: { fieldPath: "metadata.annotations['clinical-r1/model-version']" } }
      {{- with $serving.gateway.traceCollector }}
      - { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
      - { name: OTEL_EXPORTER_OTLP_PROTOCOL, value: http/protobuf }
      {{- end }}
      {{- if $samples }}
      - { name: AWS_ENDPOINT_URL, value: {{ include "clinical-r1.storeUrl" . | quote }} }
      - { name: AWS_REGION, value: {{ .Values.objectStore.region | quote }} }
      - { name: CLINICAL_R1_STORE_SECRET_DIR, value: /etc/clinical-r1/audit-store }
      {{- if include "clinical-r1.caConfigMap" . }}
      - { name: AWS_CA_BUNDLE, value: /etc/clinical-r1/ca/{{ include "clinical-r1.caKey" . }} }
      {{- end }}
      {{- end }}
    ports:
      - { name: http, containerPort: 8080, protocol: TCP }
    startupProbe:
      httpGet: { path: /healthz/live, port: 8080 }
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: { path: /healthz/live, port: 8080 }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: { path: /healthz/ready, port: 8080 }
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    resources:
      {{- toYaml $serving.gateway.resources | nindent 6 }}
    securityContext:
      {{- include "clinical-r1.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - { name: gateway, mountPath: /etc/clinical-r1/gateway, readOnly: true }
      {{- if eq $serving.gateway.auth "keys" }}
      - { name: keys, mountPath: /etc/clinical-r1/keys, readOnly: true }
      {{- end }}
      {{- if $samples }}
      - { name: audit-store, mountPath: /etc/clinical-r1/audit-store, readOnly: true }
      {{- if include "clinical-r1.caConfigMap" . }}
      - { name: ca, mountPath: /etc/clinical-r1/ca, readOnly: true }
      {{- end }}
      {{- end }}
      - { name: tmp, mountPath: /tmp }
volumes:
  - { name: cache, emptyDir: {} }
  - { name: tmp, emptyDir: {} }
  - { name: shm, emptyDir: { medium: Memory, sizeLimit: {{ $engine.sharedMemory | quote }} } }
  - { name: gateway, configMap: { name: "{{ $name }}-gateway" } }
  {{- if $samples }}
  - { name: audit-store, secret: { secretName: {{ include "clinical-r1.storeSecret" (list . "audit") | quote }} } }
  {{- with include "clinical-r1.caConfigMap" . }}
  - { name: ca, configMap: { name: {{ . | quote }} } }
  {{- end }}
  {{- end }}
  {{- if eq $serving.gateway.auth "keys" }}
  - { name: keys, secret: { secretName: {{ include "clinical-r1.keysSecret" . | quote }}, items: [{ key: keys, path: keys }] } }
  {{- end }}
{{- end -}}
