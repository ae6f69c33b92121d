{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "tidegate.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* No value is in it: a Deployment's selector can never be changed, so nothing that is set later may change it. */}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: bridge
{{- end -}}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tidegate.metadata" -}}
name: {{ include "tidegate.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "tidegate.labels" . | nindent 2 }}
{{- end -}}

{{- define "tidegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.kind" -}}
{{- ternary "StatefulSet" "Deployment" .Values.broker.stableClientIds -}}
{{- end -}}

{{- define "tidegate.managementService" -}}
{{- printf "%s-management" (include "tidegate.fullname" .) -}}
{{- end -}}

{{- define "tidegate.headlessService" -}}
{{- printf "%s-pods" (include "tidegate.fullname" .) -}}
{{- end -}}

{{- define "tidegate.credentialSecret" -}}
{{- if .Values.credentials.certificate.enabled -}}
{{- printf "%s-broker-credential" (include "tidegate.fullname" .) -}}
{{- else -}}
{{- .Values.credentials.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* The family of a Service, where it is not left to the cluster. */}}
{{- define "tidegate.ipFamily" -}}
{{- if eq .Values.ipFamily "IPv6" -}}
ipFamilyPolicy: SingleStack
ipFamilies: [IPv6]
{{- end -}}
{{- end -}}
