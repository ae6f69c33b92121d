{{/* A value of settings as the bridge reads it: a whole number stays one, however YAML or JSON took it; a list has commas. */}}
{{- define "tidegate.settingValue" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if kindIs "float64" . -}}
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
{{- $everywhere := ternary "::" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
TIDEGATE_HOST: {{ $everywhere | quote }}
TIDEGATE_PORT: "8080"
{{- if .Values.management.enabled }}
TIDEGATE_MANAGEMENT_HOST: {{ $everywhere | quote }}
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

{{/* The port of a URL, or that of its scheme. */}}
{{- define "tidegate.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports := dict "mqtt" "1883" "mqtts" "8883" "ws" "80" "wss" "443" "http" "80" "https" "443" "redis" "6379" "rediss" "6379" -}}
{{- default (get $ports $url.scheme) $port -}}
{{- end -}}

{{- define "tidegate.brokerPort" -}}
{{- if .Values.networkPolicy.brokerPort -}}
{{- .Values.networkPolicy.brokerPort -}}
{{- else -}}
{{- $url := .Values.broker.url | default (get .Values.settings "TIDEGATE_BROKER_URL") | default (get .Values.secretSettings "TIDEGATE_BROKER_URL") -}}
{{- include "tidegate.port" (required "networkPolicy.brokerPort: say which port the broker listens at, since broker.url does not" $url) -}}
{{- end -}}
{{- end -}}

{{/* Empty where no Redis is known of; one that a Secret of others names is not. */}}
{{- define "tidegate.redisPort" -}}
{{- if .Values.networkPolicy.redisPort -}}
{{- .Values.networkPolicy.redisPort -}}
{{- else -}}
{{- with get .Values.secretSettings "TIDEGATE_REDIS_URL" -}}
{{- include "tidegate.port" . -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the issuer of tokens publishes its keys; empty where none does. */}}
{{- define "tidegate.issuerPort" -}}
{{- with get .Values.settings "TIDEGATE_JWT_JWKS_URL" -}}
{{- include "tidegate.port" . -}}
{{- end -}}
{{- end -}}

{{/* The seconds of a duration such as 1h30m. */}}
{{- define "tidegate.seconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
