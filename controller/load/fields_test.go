package load

import (
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// served are the fields that are read, with where. What is here and not read is a lie that only a reader can find; what
// is in neither list fails TestNoFieldIsIgnored.
var served = map[string]string{
	"spec.dataset.name":            "obstacle",
	"spec.dataset.namespace":       "check",
	"spec.loadMetadata":            "begin",
	"spec.target.path":             "begin",
	"spec.target.replicas":         "begin",
	"spec.policy":                  "check, untilDue",
	"spec.schedule":                "untilDue",
	"spec.runAfter.apiVersion":     "check",
	"spec.runAfter.kind":           "check",
	"spec.runAfter.name":           "obstacle",
	"spec.runAfter.namespace":      "check",
	"spec.ttlSecondsAfterFinished": "expire",
}

// TestNoFieldIsIgnored looks at each field of a load: it is served, or it is named when it is set.
func TestNoFieldIsIgnored(t *testing.T) {
	everything := &v1alpha1.DataLoad{Spec: v1alpha1.DataLoadSpec{
		Options: map[string]string{"a": "b"}, PodMetadata: v1alpha1.PodMetadata{
			Labels:      map[string]string{"a": "b"},
			Annotations: map[string]string{"a": "b"},
		},
		Affinity: &corev1.Affinity{}, Tolerations: []corev1.Toleration{{Key: "k"}},
		NodeSelector: map[string]string{"a": "b"}, SchedulerName: "mine",
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
		RunAfter:  &v1alpha1.OperationRef{AffinityStrategy: &v1alpha1.AffinityStrategy{Policy: "Require"}},
	}}
	unsupported(everything, time.Now())
	message := ""
	for _, c := range everything.Status.Conditions {
		if c.Type == v1alpha1.Unsupported {
			message = c.Message
		}
	}
	_, list, _ := strings.Cut(message, ": ")
	named := map[string]bool{}
	for name := range strings.SplitSeq(list, ", ") {
		named[name] = true
	}
	seen := map[string]bool{}
	for _, field := range fields(reflect.TypeFor[v1alpha1.DataLoadSpec](), "spec") {
		seen[field] = true
		isNamed := named[field] || named[field[:strings.LastIndex(field, ".")]]
		if _, isServed := served[field]; isServed == isNamed {
			t.Errorf("%s is served: %t, named as one without effect: %t", field, isServed, isNamed)
		}
	}
	for field := range served {
		if !seen[field] {
			t.Errorf("%s is no field any more", field)
		}
	}
}

// fields are the paths of all fields of a struct of the API; those of Kubernetes' own types are one field.
func fields(typ reflect.Type, path string) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[v1alpha1.DataLoad]().PkgPath() {
		return []string{path}
	}
	var all []string
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		all = append(all, fields(typ.Field(i).Type, path+"."+name)...)
	}
	return all
}

// TestRefused gives loads that cannot be served.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		spec v1alpha1.DataLoadSpec
		want string
	}{
		"other namespace": {
			v1alpha1.DataLoadSpec{Dataset: v1alpha1.TargetDataset{Name: "d", Namespace: "elsewhere"}},
			`spec.dataset.namespace is "elsewhere"`,
		},
		"on event": {v1alpha1.DataLoadSpec{Policy: v1alpha1.OnEvent}, "spec.policy OnEvent"},
		"after a backup": {
			v1alpha1.DataLoadSpec{RunAfter: &v1alpha1.OperationRef{Kind: "DataBackup"}},
			"spec.runAfter.kind DataBackup",
		},
		"another API": {
			v1alpha1.DataLoadSpec{RunAfter: &v1alpha1.OperationRef{Kind: "DataLoad", APIVersion: "v2"}},
			`spec.runAfter.apiVersion is "v2"`,
		},
		"after elsewhere": {v1alpha1.DataLoadSpec{RunAfter: &v1alpha1.OperationRef{
			Kind:      "DataLoad",
			Namespace: "elsewhere",
		}}, "spec.runAfter.namespace"},
		"schedule": {
			v1alpha1.DataLoadSpec{Policy: v1alpha1.Cron, Schedule: "at noon"},
			`spec.schedule "at noon"`,
		},
		"good": {v1alpha1.DataLoadSpec{
			Policy: v1alpha1.Cron, Schedule: "0 3 * * *",
			RunAfter: &v1alpha1.OperationRef{
				Kind: "DataLoad", Name: "x", APIVersion: "data.fluid.io/v1alpha1",
				Namespace: "ns",
			},
		}, ""},
	} {
		l := &v1alpha1.DataLoad{Spec: tc.spec}
		l.Namespace = "ns"
		if got := check(l); tc.want == "" && got != "" || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

// TestScheduleIsKept looks when a scheduled load is due, first and again.
func TestScheduleIsKept(t *testing.T) {
	made := time.Date(2026, 3, 1, 2, 30, 0, 0, time.UTC)
	l := &v1alpha1.DataLoad{Spec: v1alpha1.DataLoadSpec{Policy: v1alpha1.Cron, Schedule: "0 3 * * *"}}
	l.CreationTimestamp.Time = made
	if got := untilDue(l, made); got != 30*time.Minute {
		t.Errorf("it is due in %v, want 30 minutes", got)
	}
	late := made.Add(time.Hour)
	if got := untilDue(l, late); got != 0 {
		t.Errorf("half an hour late it is due in %v, want now", got)
	}
	l.Status.LastScheduleTime = &metav1.Time{Time: late}
	if got := untilDue(l, late); got != 23*time.Hour+30*time.Minute {
		t.Errorf("it is due again in %v, want 23.5 hours", got)
	}
}
