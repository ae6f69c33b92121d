{{/*
What is refused of settings, secretSettings and environment: what the chart sets itself, what the bridge does not
know or would not take, and secrets where everybody reads them. files/settings.yaml is made from the bridge's own
settings, so that this says what the bridge would say, before a pod is started for it.
*/}}
{{- define "tidegate.refuseSettings" -}}
{{- $owned := dict
  "TIDEGATE_HOST" "ipFamily; a pod listens at every address of it"
  "TIDEGATE_PORT" "service.port, which leads to the pods' port 8080"
  "TIDEGATE_MANAGEMENT_HOST" "management.enabled"
  "TIDEGATE_MANAGEMENT_PORT" "management.port"
  "TIDEGATE_DRAIN_SECONDS" "stopping.drainSeconds, from which the grace is computed"
  "TIDEGATE_BROKER_CLIENT_ID" "broker.stableClientIds: two pods of one client identifier would throw each other out for ever"
  "TIDEGATE_INSECURE" "access.insecure"
  "TIDEGATE_API_KEYS_FILE" "access.apiKeys.existingSecret"
  "TIDEGATE_CREDENTIALS_MOUNT" "credentials.existingSecret or credentials.certificate"
  "TIDEGATE_CREDENTIALS_DIR" "credentials.existingClaim"
  "TIDEGATE_SECRETS_DIR" "secretSettings or existingSecrets"
-}}
{{- $known := .Files.Get "files/settings.yaml" | fromYaml -}}
{{- range $name := concat (keys .Values.settings) (keys .Values.secretSettings) | uniq | sortAlpha -}}
{{- with get $owned $name -}}
{{- fail (printf "%s is set by the chart; use %s" $name .) -}}
{{- end -}}
{{- if hasKey $known (printf "TIDEGATE_%s" (upper $name)) -}}
{{- fail (printf "%s is no setting; write TIDEGATE_%s" $name (upper $name)) -}}
{{- end -}}
{{- if not (hasKey $known $name) -}}
{{- fail (printf "%s is no setting of Tidegate %s, and the bridge would not start; docs/configuration.md lists them, and variables of others go into environment" $name $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- if hasKey $.Values.secretSettings $name -}}
{{- fail (printf "%s stands in settings and in secretSettings; keep the one in secretSettings" $name) -}}
{{- end -}}
{{- $rule := get $known $name -}}
{{- if $rule.secret -}}
{{- fail (printf "%s is a secret, and settings end in a ConfigMap; put it into a Secret named in existingSecrets, or into secretSettings" $name) -}}
{{- end -}}
{{- $text := include "tidegate.settingValue" $value -}}
{{- if include "tidegate.isWrong" (dict "rule" $rule "text" $text) -}}
{{- fail (printf "settings.%s: %q is not allowed; write %s" $name $text $rule.words) -}}
{{- end -}}
{{- if and (hasPrefix "/etc/tidegate/" $text) (not (hasKey $.Values.files (base $text))) (not $.Values.extraVolumeMounts) -}}
{{- fail (printf "settings.%s: there is no %s in files, which is what the pods find in /etc/tidegate" $name (base $text)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.secretSettings -}}
{{- $rule := get $known $name -}}
{{- if include "tidegate.isWrong" (dict "rule" $rule "text" (include "tidegate.settingValue" $value)) -}}
{{- fail (printf "secretSettings.%s: its value is not allowed; write %s" $name $rule.words) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.environment -}}
{{- if hasPrefix "TIDEGATE_" (upper $name) -}}
{{- fail (printf "environment.%s: settings of the bridge go into settings or secretSettings" $name) -}}
{{- end -}}
{{- end -}}
{{- if contains "@" (get .Values.settings "TIDEGATE_BROKER_URL" | toString) -}}
{{- fail "TIDEGATE_BROKER_URL holds a user, and settings end in a ConfigMap; put it into a Secret named in existingSecrets, or into secretSettings" -}}
{{- end -}}
{{- end -}}

{{/* "wrong" where a text is not what a setting may be: its pattern and bounds. An empty one counts as not there. */}}
{{- define "tidegate.isWrong" -}}
{{- if and .rule.pattern .text -}}
{{- if not (regexMatch .rule.pattern .text) -}}
wrong
{{- else if or
  (and (hasKey .rule "least") (lt (float64 .text) (float64 .rule.least)))
  (and (hasKey .rule "above") (le (float64 .text) (float64 .rule.above)))
  (and (hasKey .rule "most") (gt (float64 .text) (float64 .rule.most)))
-}}
wrong
{{- end -}}
{{- end -}}
{{- end -}}
