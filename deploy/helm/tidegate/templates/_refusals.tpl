{{/*
What no schema can tell: values that contradict one another. Each refusal names the value and says what to do.
*/}}
{{- define "tidegate.refuse" -}}
{{- include "tidegate.refuseSettings" . -}}
{{- include "tidegate.refuseDurations" . -}}
{{- include "tidegate.refuseBroker" . -}}
{{- include "tidegate.refuseAccess" . -}}
{{- include "tidegate.refuseCredentials" . -}}
{{- include "tidegate.refusePods" . -}}
{{- include "tidegate.refuseWays" . -}}
{{- end -}}

{{/* What cert-manager, the Prometheus operator and the Gateway API take: whole numbers, each with its unit. */}}
{{- define "tidegate.refuseDurations" -}}
{{- $certificate := .Values.credentials.certificate -}}
{{- range $name, $value := dict
  "credentials.certificate.duration" $certificate.duration
  "credentials.certificate.renewBefore" $certificate.renewBefore
  "httpRoute.requestTimeout" .Values.httpRoute.requestTimeout
  "serviceMonitor.interval" .Values.serviceMonitor.interval
-}}
{{- if not (regexMatch "^([0-9]{1,5}(h|m|s|ms)){1,4}$" $value) -}}
{{- fail (printf "%s: %q is no duration; write hours, minutes or seconds, as in 720h, 30m or 15s" $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.refuseBroker" -}}
{{- $given := merge (dict) .Values.settings .Values.secretSettings -}}
{{- with .Values.broker -}}
{{- $inSecret := hasKey $.Values.secretSettings "TIDEGATE_BROKER_URL" -}}
{{- if and .url $inSecret -}}
{{- fail "the broker's URL stands in broker.url and in TIDEGATE_BROKER_URL; keep one" -}}
{{- end -}}
{{- if not (or .url $inSecret $.Values.existingSecrets) -}}
{{- fail "no broker: set broker.url, as in --set broker.url=mqtt://mosquitto:1883, or TIDEGATE_BROKER_URL in a Secret named in existingSecrets" -}}
{{- end -}}
{{- if not (regexMatch "^((mqtts?|wss?)://[^/]+.*)?$" .url) -}}
{{- fail (printf "broker.url: %q is no URL of a broker; write it as in mqtt://mosquitto:1883, or with mqtts, ws or wss" .url) -}}
{{- end -}}
{{- if contains "@" .url -}}
{{- fail "broker.url holds a user, and ends in a ConfigMap; put TIDEGATE_BROKER_USERNAME and TIDEGATE_BROKER_PASSWORD into a Secret named in existingSecrets" -}}
{{- end -}}
{{- if regexMatch "[?&]client_id=" .url -}}
{{- fail "broker.url has a client_id, and two pods of one client identifier would throw each other out for ever; use broker.stableClientIds" -}}
{{- end -}}
{{- if and .clientIdPrefix (not .stableClientIds) -}}
{{- fail "broker.clientIdPrefix has a meaning with broker.stableClientIds=true alone" -}}
{{- end -}}
{{- $expiry := get $given "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS" | default 0 -}}
{{- if and (ne (include "tidegate.settingValue" $expiry) "0") (not .stableClientIds) -}}
{{- fail "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS: the broker keeps a session for a client that comes back under its name; set broker.stableClientIds=true" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.refuseAccess" -}}
{{- $given := merge (dict) .Values.settings .Values.secretSettings -}}
{{- $asking := list -}}
{{- range list "TIDEGATE_JWT_KEY" "TIDEGATE_JWT_KEY_FILE" "TIDEGATE_JWT_JWKS_URL" "TIDEGATE_PROXY_SUBJECT_HEADER" -}}
{{- if get $given . -}}
{{- $asking = append $asking . -}}
{{- end -}}
{{- end -}}
{{- with .Values.access.apiKeys.existingSecret -}}
{{- $asking = append $asking "access.apiKeys" -}}
{{- end -}}
{{- if and .Values.access.insecure $asking -}}
{{- fail (printf "access.insecure asks nobody who they are, and %s does: choose one" (first $asking)) -}}
{{- end -}}
{{- if not (or $asking .Values.existingSecrets .Values.access.insecure) -}}
{{- fail "nobody would be asked who they are: name a Secret of API keys in access.apiKeys.existingSecret, or set TIDEGATE_JWT_JWKS_URL in settings; access.insecure=true lets everybody in who reaches the Service" -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.refuseCredentials" -}}
{{- $secrets := .Values.secretSettings -}}
{{- $mounted := include "tidegate.credentialSecret" . -}}
{{- with .Values.credentials -}}
{{- if and .existingSecret .certificate.enabled -}}
{{- fail "credentials.existingSecret and credentials.certificate both say where the broker's credential comes from: choose one" -}}
{{- end -}}
{{- if and .existingClaim $mounted -}}
{{- fail "credentials.existingClaim keeps what is uploaded, and credentials.existingSecret or credentials.certificate brings one from elsewhere; the bridge takes one of the two: choose" -}}
{{- end -}}
{{- if and .existingClaim (not $.Values.existingSecrets) (not (hasKey $secrets "TIDEGATE_CREDENTIALS_KEY")) -}}
{{- fail "credentials.existingClaim: what is kept there is encrypted with TIDEGATE_CREDENTIALS_KEY; make one by 'tidegate credentials key', and put it into a Secret named in existingSecrets" -}}
{{- end -}}
{{- if and (hasKey $secrets "TIDEGATE_CREDENTIALS_KEY") (not .existingClaim) -}}
{{- fail "TIDEGATE_CREDENTIALS_KEY encrypts what is kept in credentials.existingClaim; name that claim" -}}
{{- end -}}
{{- if and (hasKey $secrets "TIDEGATE_CREDENTIALS_PASSPHRASE") (not $mounted) -}}
{{- fail "TIDEGATE_CREDENTIALS_PASSPHRASE opens the key in credentials.existingSecret; name that Secret" -}}
{{- end -}}
{{- with .certificate -}}
{{- if .enabled -}}
{{- if not .issuerRef.name -}}
{{- fail "credentials.certificate.issuerRef.name: say which issuer of cert-manager signs" -}}
{{- end -}}
{{- if not (or .commonName .dnsNames) -}}
{{- fail "credentials.certificate: set commonName or dnsNames, by which the broker knows the bridge" -}}
{{- end -}}
{{- if ge (include "tidegate.seconds" .renewBefore | float64) (include "tidegate.seconds" .duration | float64) -}}
{{- fail (printf "credentials.certificate.renewBefore: %s before the end of a certificate of %s is before its beginning; make it shorter" .renewBefore .duration) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $mounted (regexMatch "^(mqtt|ws)://" $.Values.broker.url) -}}
{{- fail "credentials has no use without TLS; begin broker.url with mqtts:// or wss://" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.refusePods" -}}
{{- with .Values.stopping -}}
{{- $least := add .preStopSeconds (ceil .drainSeconds) -}}
{{- if and .graceSeconds (le (int64 .graceSeconds) $least) -}}
{{- fail (printf "stopping.graceSeconds: %d is no longer than preStopSeconds and drainSeconds together, %d, and pods would be killed while streams are told goodbye; leave it 0 to have it computed" (int64 .graceSeconds) $least) -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) -}}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (or .cpuPercent .streamsPerPod) -}}
{{- fail "autoscaling: set cpuPercent, streamsPerPod or both; with neither there is nothing to scale by" -}}
{{- end -}}
{{- $most := int64 (get $.Values.settings "TIDEGATE_MAX_STREAMS" | default 10000) -}}
{{- if gt (int64 .streamsPerPod) $most -}}
{{- fail (printf "autoscaling.streamsPerPod: a pod lets in %d streams (TIDEGATE_MAX_STREAMS), so no pod would ever be added for them; set less than that" $most) -}}
{{- end -}}
{{- if and .cpuPercent (not (dig "requests" "cpu" "" $.Values.resources)) -}}
{{- fail "autoscaling.cpuPercent is a share of resources.requests.cpu, which is not there; set it, or cpuPercent to 0" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (has (toString .Values.podDisruptionBudget.maxUnavailable) (list "0" "0%")) -}}
{{- fail "podDisruptionBudget.maxUnavailable: with 0 no node with a pod of these could ever be drained; allow 1" -}}
{{- end -}}
{{- if and .Values.management.enabled (eq (int64 .Values.management.port) 8080) -}}
{{- fail "management.port: the pods serve clients at 8080; choose another" -}}
{{- end -}}
{{- $selector := include "tidegate.selector" . | fromYaml -}}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range $name, $_ := $labels -}}
{{- if hasKey $selector $name -}}
{{- fail (printf "%s: the Services find the pods by %s, so the chart sets it; choose another label" $value $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ingress, route, policy and monitor: the ways to the pods, and from them. */}}
{{- define "tidegate.refuseWays" -}}
{{- $settings := .Values.settings -}}
{{- with .Values.ingress -}}
{{- if .enabled -}}
{{- if not .hosts -}}
{{- fail "ingress.hosts: name the host that leads to the bridge" -}}
{{- end -}}
{{- range .hosts -}}
{{- if not (regexMatch "^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .) -}}
{{- fail (printf "ingress.hosts: %q is no host name; write it alone and in small letters, as in mqtt.plant.example" .) -}}
{{- end -}}
{{- end -}}
{{- if not .tls.secretName -}}
{{- range list "cert-manager.io/cluster-issuer" "cert-manager.io/issuer" -}}
{{- if hasKey $.Values.ingress.annotations . -}}
{{- fail (printf "ingress.tls.secretName: %s asks cert-manager for a certificate; say which Secret it goes into" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with get $settings "TIDEGATE_HEARTBEAT_SECONDS" -}}
{{- if ge (float64 .) (float64 $.Values.ingress.streamSeconds) -}}
{{- fail (printf "ingress.streamSeconds: a quiet stream says nothing for %v seconds (TIDEGATE_HEARTBEAT_SECONDS), and would be ended before; make it longer" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.httpRoute -}}
{{- if .enabled -}}
{{- if not .parentRefs -}}
{{- fail "httpRoute.parentRefs: name the Gateway that the route hangs on" -}}
{{- end -}}
{{- $longest := get $settings "TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS" | default 120 -}}
{{- $timeout := include "tidegate.seconds" .requestTimeout | float64 -}}
{{- if and (gt $timeout 0.0) (le $timeout (float64 $longest)) -}}
{{- fail (printf "httpRoute.requestTimeout: %s would end requests that may wait for %v seconds (TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS); make it longer" .requestTimeout $longest) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.management.enabled) -}}
{{- fail "serviceMonitor reads the management port: set management.enabled=true" -}}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- if .enabled -}}
{{- if and .monitoring (not $.Values.management.enabled) -}}
{{- fail "networkPolicy.monitoring opens the management port: set management.enabled=true" -}}
{{- end -}}
{{- if and $.Values.serviceMonitor.enabled (not .monitoring) -}}
{{- fail "networkPolicy.monitoring: Prometheus is to read the management port (serviceMonitor), and the policy lets nobody; name it, as in {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}" -}}
{{- end -}}
{{- if and .redis (not (include "tidegate.redisPort" $)) -}}
{{- fail "networkPolicy.redisPort: say which port Redis listens at, since no TIDEGATE_REDIS_URL in secretSettings does" -}}
{{- end -}}
{{- if and .issuers (not (include "tidegate.issuerPort" $)) -}}
{{- fail "networkPolicy.issuers are asked for keys at TIDEGATE_JWT_JWKS_URL: set that in settings" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
