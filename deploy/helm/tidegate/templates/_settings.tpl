{{/* A value of settings as the bridge reads it: a whole number stays one, however YAML or JSON took it. */}}
{{- define "tidegate.settingValue" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/* Every TIDEGATE_* variable that is no secret and the same in each pod. */}}
{{- define "tidegate.settings" -}}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ include "tidegate.settingValue" $value | quote }}
{{- end }}
{{- with .Values.broker.url }}
TIDEGATE_BROKER_URL: {{ . | quote }}
{{- end }}
TIDEGATE_HOST: "0.0.0.0"
TIDEGATE_PORT: "8080"
{{- if .Values.management.enabled }}
TIDEGATE_MANAGEMENT_HOST: "0.0.0.0"
TIDEGATE_MANAGEMENT_PORT: {{ .Values.management.port | quote }}
{{- end }}
TIDEGATE_DRAIN_SECONDS: {{ .Values.stopping.drainSeconds | quote }}
{{- if .Values.access.insecure }}
TIDEGATE_INSECURE: "1"
{{- end }}
{{- with .Values.access.apiKeys }}
{{- if .existingSecret }}
TIDEGATE_API_KEYS_FILE: {{ printf "/run/tidegate/api-keys/%s" .key | quote }}
{{- end }}
{{- end }}
{{- if include "tidegate.credentialSecret" . }}
TIDEGATE_CREDENTIALS_MOUNT: /run/tidegate/credential
{{- end }}
{{- if .Values.credentials.existingClaim }}
TIDEGATE_CREDENTIALS_DIR: /var/lib/tidegate/credentials
{{- end }}
{{- if or .Values.secretSettings .Values.existingSecrets }}
TIDEGATE_SECRETS_DIR: /run/tidegate/settings
{{- end }}
{{- end -}}

{{/* Seconds until Kubernetes kills a pod that stops: preStop, the drain, and five to spare. */}}
{{- define "tidegate.graceSeconds" -}}
{{- $least := add .Values.stopping.preStopSeconds (ceil .Values.stopping.drainSeconds) 5 -}}
{{- default $least .Values.stopping.graceSeconds -}}
{{- end -}}

{{- define "tidegate.brokerPort" -}}
{{- if .Values.networkPolicy.brokerPort -}}
{{- .Values.networkPolicy.brokerPort -}}
{{- else -}}
{{- $url := urlParse (required "networkPolicy.brokerPort: say which port the broker listens at, since broker.url does not" .Values.broker.url) -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (get (dict "mqtt" "1883" "mqtts" "8883" "ws" "80" "wss" "443") $url.scheme) $port -}}
{{- end -}}
{{- end -}}
