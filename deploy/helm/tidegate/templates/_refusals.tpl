{{/*
What no schema can tell: values that contradict one another. Each refusal names the value and says what to do.
*/}}
{{- define "tidegate.refuse" -}}
{{- $owned := dict
  "TIDEGATE_HOST" "nothing: a pod listens on every address"
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
{{- range $name := concat (keys .Values.settings) (keys .Values.secretSettings) | uniq | sortAlpha -}}
{{- with get $owned $name -}}
{{- fail (printf "%s is set by the chart; use %s" $name .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.secretSettings -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "%s stands in settings and in secretSettings; keep the one in secretSettings" $name) -}}
{{- end -}}
{{- end -}}
{{- range list "TIDEGATE_BROKER_PASSWORD" "TIDEGATE_BROKER_KEY_PASSPHRASE" "TIDEGATE_CREDENTIALS_KEY" "TIDEGATE_JWT_KEY" "TIDEGATE_REDIS_URL" -}}
{{- if hasKey $.Values.settings . -}}
{{- fail (printf "%s is a secret, and settings end in a ConfigMap; put it into a Secret named in existingSecrets, or into secretSettings" .) -}}
{{- end -}}
{{- end -}}
{{- $given := merge (dict) .Values.settings .Values.secretSettings -}}
{{- if and .Values.broker.url (hasKey $given "TIDEGATE_BROKER_URL") -}}
{{- fail "the broker's URL stands in broker.url and in TIDEGATE_BROKER_URL; keep one" -}}
{{- end -}}
{{- if not (or .Values.broker.url (hasKey $given "TIDEGATE_BROKER_URL") .Values.existingSecrets) -}}
{{- fail "no broker: set broker.url, as in --set broker.url=mqtt://mosquitto:1883, or TIDEGATE_BROKER_URL in a Secret named in existingSecrets" -}}
{{- end -}}
{{- if and .Values.broker.url (contains "@" .Values.broker.url) -}}
{{- fail "broker.url holds a user, and ends in a ConfigMap; put TIDEGATE_BROKER_USERNAME and TIDEGATE_BROKER_PASSWORD into a Secret named in existingSecrets" -}}
{{- end -}}
{{- $hasJwt := false -}}
{{- range $name, $_ := $given -}}
{{- if hasPrefix "TIDEGATE_JWT_" $name -}}
{{- $hasJwt = true -}}
{{- end -}}
{{- end -}}
{{- $hasAuthentication := or $hasJwt .Values.access.apiKeys.existingSecret .Values.existingSecrets -}}
{{- if not (or $hasAuthentication .Values.access.insecure) -}}
{{- fail "nobody would be asked who they are: name a Secret of API keys in access.apiKeys.existingSecret, or set TIDEGATE_JWT_* in settings; access.insecure=true lets everybody in who reaches the Service" -}}
{{- end -}}
{{- if and .Values.access.insecure .Values.access.apiKeys.existingSecret -}}
{{- fail "access.insecure asks nobody, access.apiKeys asks for a key: choose one" -}}
{{- end -}}
{{- with .Values.stopping -}}
{{- $least := add .preStopSeconds (ceil .drainSeconds) -}}
{{- if and .graceSeconds (le (int64 .graceSeconds) $least) -}}
{{- fail (printf "stopping.graceSeconds: %d is no longer than preStopSeconds and drainSeconds together, %d, and pods would be killed while streams are told goodbye; leave it 0 to have it computed" (int64 .graceSeconds) $least) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $given "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS") (not .Values.broker.stableClientIds) -}}
{{- fail "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS: the broker keeps a session for a client that comes back under its name; set broker.stableClientIds=true" -}}
{{- end -}}
{{- if and .Values.broker.clientIdPrefix (not .Values.broker.stableClientIds) -}}
{{- fail "broker.clientIdPrefix has a meaning with broker.stableClientIds=true alone" -}}
{{- end -}}
{{- with .Values.credentials -}}
{{- if and .existingSecret .certificate.enabled -}}
{{- fail "credentials.existingSecret and credentials.certificate both say where the broker's credential comes from: choose one" -}}
{{- end -}}
{{- if .certificate.enabled -}}
{{- if not .certificate.issuerRef.name -}}
{{- fail "credentials.certificate.issuerRef.name: say which issuer of cert-manager signs" -}}
{{- end -}}
{{- if not (or .certificate.commonName .certificate.dnsNames) -}}
{{- fail "credentials.certificate: set commonName or dnsNames, by which the broker knows the bridge" -}}
{{- end -}}
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
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: name the host that leads to the bridge" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.management.enabled) -}}
{{- fail "serviceMonitor reads the management port: set management.enabled=true" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the Gateway that the route hangs on" -}}
{{- end -}}
{{- end -}}
