{{/* Policy of a store user as JSON: (list BUCKET (list PREFIX...) RIGHTS), where RIGHTS is readwrite, read or write */}}
{{- define "clinical-r1.policy" -}}
{{- $bucket := printf "arn:aws:s3:::%s" (index . 0) -}}
{{- $seen := list -}}{{- $objects := list -}}
{{- range $prefix := index . 1 -}}
{{- $seen = concat $seen (list $prefix (printf "%s/" $prefix) (printf "%s/*" $prefix)) -}}
{{- $objects = append $objects (printf "%s/%s/*" $bucket $prefix) -}}
{{- end -}}
{{- $writes := list "s3:PutObject" "s3:AbortMultipartUpload" "s3:ListMultipartUploadParts" -}}
{{- $actions := index (dict "read" (list "s3:GetObject") "write" $writes "readwrite" (concat (list "s3:GetObject" "s3:DeleteObject") $writes)) (index . 2) -}}

{{- $statements := list
  (dict "Effect" "Allow" "Action" (list "s3:GetBucketLocation") "Resource" (list $bucket))
  (dict "Effect" "Allow" "Action" (list "s3:ListBucket") "Resource" (list $bucket)
    "Condition" (dict "StringLike" (dict "s3:prefix" $seen)))
  (dict "Effect" "Allow" "Action" $actions "Resource" $objects) -}}
{{- /* KServe's storage initializer asks for the bucket as such (HeadBucket) before it reads, and S3 has no right for that but
       to list without a prefix: who serves may see names of objects elsewhere, but reads none. */ -}}
{{- if eq (index . 2) "read" -}}
{{- $statements = append $statements (dict "Effect" "Allow" "Action" (list "s3:ListBucket") "Resource" (list $bucket)
    "Condition" (dict "Null" (dict "s3:prefix" "true"))) -}}
{{- end -}}
{{- dict "Version" "2012-10-17" "Statement" $statements | toPrettyJson -}}
{{- end -}}

{{/* What the set-up job does, as JSON. */}}
{{- define "clinical-r1.storePlan" -}}
{{- $store := .Values.objectStore -}}
{{- $users := list -}}
{{- if eq $store.mode "minio" -}}{{- $users = splitList " " (include "clinical-r1.storeUsers" .) -}}{{- end -}}
{{- $days := $store.retentionDays -}}
{{- dict "bucket" $store.bucket "region" $store.region "endpoint" (include "clinical-r1.storeUrl" .)
  "create_bucket" $store.setup.createBucket
  "lifecycle" (ternary $days (dict) $store.setup.lifecycle)
  "policy_prefix" (include "clinical-r1.name" .)
  "users" $users | toPrettyJson -}}
{{- end -}}
