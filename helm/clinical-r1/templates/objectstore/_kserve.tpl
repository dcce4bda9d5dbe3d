{{/* Annotations by which KServe's storage initializer finds the store. */}}
{{- define "clinical-r1.kserveStore" -}}
serving.kserve.io/s3-endpoint: {{ include "clinical-r1.storeHost" . | quote }}
serving.kserve.io/s3-usehttps: {{ ternary "1" "0" (eq (include "clinical-r1.storeTls" .) "true") | quote }}
serving.kserve.io/s3-verifyssl: "1"
serving.kserve.io/s3-region: {{ .Values.objectStore.region | quote }}
{{- with include "clinical-r1.caConfigMap" . }}
serving.kserve.io/s3-cabundle-configmap: {{ . | quote }}
serving.kserve.io/s3-cabundle: {{ printf "/etc/ssl/custom-certs/%s" (include "clinical-r1.caKey" $) | quote }}
{{- end }}
{{- end -}}
