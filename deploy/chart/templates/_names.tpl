{{/* Labels of all objects; the component is what .component says. */}}
{{- define "millrace.labels" -}}
app.kubernetes.io/name: millrace
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: millrace
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{/* Labels by which the pods of a component are found. They cannot change in an upgrade. */}}
{{- define "millrace.selector" -}}
app.kubernetes.io/name: millrace
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of pods. Runtimes let in whoever is part of millrace. The version is not among them: it would replace pods whose spec is the same. */}}
{{- define "millrace.podLabels" -}}
{{ include "millrace.selector" . }}
app.kubernetes.io/part-of: millrace
{{- end }}

{{- define "millrace.image" -}}
{{ .Values.image | default (printf "millrace/millrace:%s" .Chart.AppVersion) }}
{{- end }}

{{/* What every pod has. */}}
{{- define "millrace.pod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where the pods of nodes run: everywhere, whatever the node is tainted with. */}}
{{- define "millrace.everywhere" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
tolerations:
  - operator: Exists
priorityClassName: system-node-critical
{{- end }}

{{/* The directory in which kubelet and the driver meet. */}}
{{- define "millrace.driverDir" -}}
{{ .Values.kubeletDir }}/plugins/csi.millrace.io
{{- end }}

{{/* The arguments that the driver and the agent have in common: what volumes may name of a node. */}}
{{- define "millrace.policyArgs" -}}
- --tier-dir={{ first .Values.tierDirs | trimSuffix "/" }}/millrace
{{- range .Values.localSources }}
- --allow-local={{ . }}
{{- end }}
{{- end }}

{{/* The Secret with the network's settings, which need not be there. */}}
{{- define "millrace.networkVolume" -}}
- name: network
  secret:
    secretName: {{ .Values.network.secret | default "millrace-network" }}
    optional: {{ not .Values.network.secret }}
    defaultMode: 0440
{{- end }}

{{/* Whether a PersistentVolume is ours and names a Secret for its stage, in CEL. */}}
{{- define "millrace.staged" -}}
has(object.spec.csi) && object.spec.csi.driver == 'csi.millrace.io' &&
has(object.spec.csi.nodeStageSecretRef)
{{- end }}

{{/* The volumes of Datasets are the controller's, which knows what they are to name. */}}
{{- define "millrace.notOfDatasets" -}}
objectSelector:
  matchExpressions:
    - {key: millrace.io/dataset, operator: DoesNotExist}
{{- end }}
