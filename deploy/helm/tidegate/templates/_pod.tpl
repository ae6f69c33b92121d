{{/* The pod of the Deployment and of the StatefulSet. */}}
{{- define "tidegate.pod" -}}
metadata:
  annotations:
    # What the bridge reads once, at its start. API keys and the broker's credential are watched, and not here.
    checksum/settings: {{ include "tidegate.settings" . | sha256sum }}
    checksum/files: {{ toJson .Values.files | sha256sum }}
    checksum/secret-settings: {{ toJson .Values.secretSettings | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "tidegate.selector" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tidegate.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "tidegate.graceSeconds" . }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "tidegate.selector" $ | nindent 10 }}
      matchLabelKeys:
        - {{ ternary "controller-revision-hash" "pod-template-hash" $.Values.broker.stableClientIds }}
    {{- end }}
  {{- end }}
  containers:
    - name: bridge
      image: {{ include "tidegate.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      envFrom:
        - configMapRef:
            name: {{ include "tidegate.fullname" . }}
      {{- if or .Values.broker.stableClientIds .Values.environment }}
      env:
        {{- if .Values.broker.stableClientIds }}
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: TIDEGATE_BROKER_CLIENT_ID
          value: {{ printf "%s$(POD_NAME)" .Values.broker.clientIdPrefix | quote }}
        {{- end }}
        {{- range $name, $value := .Values.environment }}
        - name: {{ $name }}
          value: {{ include "tidegate.settingValue" $value | quote }}
        {{- end }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8080
        {{- if .Values.management.enabled }}
        - name: management
          containerPort: {{ .Values.management.port }}
        {{- end }}
      {{- $port := ternary "management" "http" .Values.management.enabled }}
      {{- range $probe, $path := dict "startup" "/livez" "liveness" "/livez" "readiness" "/readyz" }}
      {{ $probe }}Probe:
        httpGet:
          path: {{ $path }}
          port: {{ $port }}
        {{- toYaml (get $.Values.probes $probe) | nindent 8 }}
      {{- end }}
      {{- if .Values.stopping.preStopSeconds }}
      lifecycle:
        # Endpoints and proxies forget the pod meanwhile; the bridge goes on serving.
        preStop:
          sleep:
            seconds: {{ .Values.stopping.preStopSeconds }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      {{- if include "tidegate.volumes" . }}
      volumeMounts:
        {{- include "tidegate.mounts" . | nindent 8 }}
      {{- end }}
  {{- with include "tidegate.volumes" . }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Each is mounted as a folder: a file mounted by subPath would never see a new Secret. */}}
{{- define "tidegate.mounts" -}}
{{- if or .Values.secretSettings .Values.existingSecrets }}
- name: settings
  mountPath: /run/tidegate/settings
  readOnly: true
{{- end }}
{{- if .Values.files }}
- name: files
  mountPath: /etc/tidegate
  readOnly: true
{{- end }}
{{- if .Values.access.apiKeys.existingSecret }}
- name: api-keys
  mountPath: /run/tidegate/api-keys
  readOnly: true
{{- end }}
{{- if include "tidegate.credentialSecret" . }}
- name: credential
  mountPath: /run/tidegate/credential
  readOnly: true
{{- end }}
{{- if .Values.credentials.existingClaim }}
- name: credentials
  mountPath: /var/lib/tidegate/credentials
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tidegate.volumes" -}}
{{- if or .Values.secretSettings .Values.existingSecrets }}
- name: settings
  projected:
    defaultMode: 0440
    sources:
      {{- if .Values.secretSettings }}
      - secret:
          name: {{ include "tidegate.fullname" . }}
      {{- end }}
      {{- range .Values.existingSecrets }}
      - secret:
          name: {{ . }}
      {{- end }}
{{- end }}
{{- if .Values.files }}
- name: files
  configMap:
    name: {{ include "tidegate.fullname" . }}-files
{{- end }}
{{- with .Values.access.apiKeys.existingSecret }}
- name: api-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with include "tidegate.credentialSecret" . }}
- name: credential
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .Values.credentials.existingClaim }}
- name: credentials
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
