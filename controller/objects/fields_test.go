package objects

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestNoFieldIsIgnored sets each field of the specs, one at a time, in several pairs of specs. In one of them at least
// it must change the plan, or be refused, or be named as one without effect. A new field that no code reads fails here.
func TestNoFieldIsIgnored(t *testing.T) {
	for kind, typ := range map[string]reflect.Type{
		"Dataset":        reflect.TypeFor[v1alpha1.DatasetSpec](),
		"AlluxioRuntime": reflect.TypeFor[v1alpha1.AlluxioRuntimeSpec](),
	} {
		for _, field := range leaves(typ, kind+".spec") {
			t.Run(field, func(t *testing.T) {
				for _, base := range bases {
					if heard(t, base, field) {
						return
					}
				}
				t.Error("it is set and nothing comes of it: no change of the plan, no problem, and it is not among " +
					"the unsupported fields")
			})
		}
	}
}

// bases are specs in which fields have an effect that others do not give them.
var bases = []string{
	// An S3 mount, a tier that is a directory of the node.
	`
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: d}
spec:
  accessModes: [ReadWriteMany]
  owner: {uid: 1, gid: 2}
  mounts: [{mountPoint: "s3://bucket/", name: m, options: {a: b}}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: d}
spec:
  replicas: 2
  runAs: {uid: 1, gid: 2, user: u, group: ""}
  tieredstore: {levels: [{mediumtype: MEM, volumeType: hostPath, path: /dev/shm, quota: 2Gi}]}
  volumes: [{name: v, emptyDir: {}}]
  management: {metadataSyncPolicy: {autoSync: true}}
`,
	// A tier that is the pod's, a volume that is mounted.
	`
apiVersion: data.fluid.io/v1alpha1
kind: Dataset
metadata: {name: d}
spec:
  mounts: [{mountPoint: "s3://bucket/", name: m}]
---
apiVersion: data.fluid.io/v1alpha1
kind: AlluxioRuntime
metadata: {name: d}
spec:
  replicas: 2
  master: {volumeMounts: [{name: v, mountPath: /v}]}
  tieredstore: {levels: [{mediumtype: SSD, volumeType: emptyDir, path: /mnt, quota: 2Gi}]}
  volumes: [{name: v, emptyDir: {}}, {name: other, emptyDir: {}}]
`,
}

// heard sets a field, and reports whether something comes of it.
func heard(t *testing.T, base, field string) bool {
	t.Helper()
	before, problems := Desired(parse(t, []byte(base)))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	in := parse(t, []byte(base))
	spec := reflect.ValueOf(&in.Dataset.Spec).Elem()
	path, ours := strings.CutPrefix(field, "Dataset.spec.")
	if !ours {
		spec, path = reflect.ValueOf(&in.Runtime.Spec).Elem(), strings.TrimPrefix(field, "AlluxioRuntime.spec.")
	}
	set(t, spec, strings.Split(path, "."), field)
	after, problems := Desired(in)
	if len(problems) > 0 {
		return true
	}
	named := slices.ContainsFunc(after.Unsupported, func(u string) bool {
		return strings.HasPrefix(field, u) && !slices.Contains(before.Unsupported, u)
	})
	after.Unsupported = before.Unsupported
	return named || !reflect.DeepEqual(before, after)
}

// leaves are the paths of the fields of a struct of the API, as problems name them; those of Kubernetes' own types are
// one field.
func leaves(typ reflect.Type, path string) []string {
	if typ.Kind() == reflect.Slice && ourStruct(typ.Elem()) {
		return leaves(typ.Elem(), path+"[0]")
	}
	if typ.Kind() == reflect.Pointer {
		return leaves(typ.Elem(), path)
	}
	if !ourStruct(typ) {
		return []string{path}
	}
	var all []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			all = append(all, leaves(f.Type, path)...)
			continue
		}
		all = append(all, leaves(f.Type, path+"."+jsonName(f))...)
	}
	return all
}

func ourStruct(typ reflect.Type) bool {
	return typ.Kind() == reflect.Struct && typ.PkgPath() == reflect.TypeFor[v1alpha1.Dataset]().PkgPath()
}

// set gives the field at a path another value, and makes what is on the way.
func set(t *testing.T, v reflect.Value, path []string, field string) {
	t.Helper()
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if len(path) == 0 {
		v.Set(sample(t, v, field))
		return
	}
	name, inList := strings.CutSuffix(path[0], "[0]")
	next, ok := fieldNamed(v, name)
	if !ok {
		t.Fatalf("%s: there is no %s", field, name)
	}
	if inList {
		if next.Len() == 0 {
			next.Set(reflect.MakeSlice(next.Type(), 1, 1))
		}
		next = next.Index(0)
	}
	set(t, next, path[1:], field)
}

func fieldNamed(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if found, ok := fieldNamed(v.Field(i), name); ok {
				return found, true
			}
			continue
		}
		if jsonName(f) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// words are values of fields that take no others.
var words = map[string]string{
	"networkMode": "HostNetwork", "placement": "Shared", "volumeType": "emptyDir", "mediumtype": "HDD",
	"mountPoint": "s3://other/", "path": "/other",
	"quotaList": "3Gi", "high": "0.9", "low": "0.5", "storageClassName": "fast", "cleanPolicy": "OnRuntimeDeleted",
	"imagePullPolicy": "Always",
}

// sample is another value for a field.
func sample(t *testing.T, v reflect.Value, field string) reflect.Value {
	t.Helper()
	name := field[strings.LastIndex(field, ".")+1:]
	known := map[reflect.Type]any{
		reflect.TypeFor[corev1.ResourceRequirements](): corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}},
		reflect.TypeFor[resource.Quantity]():           resource.MustParse("5Gi"),
		reflect.TypeFor[corev1.EmptyDirVolumeSource](): corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages},
		reflect.TypeFor[corev1.NodeSelector]():         corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}},
		reflect.TypeFor[map[string]int]():              map[string]int{"rpc": 1234},
		reflect.TypeFor[map[string]string]():           map[string]string{"other": "value"},
		reflect.TypeFor[[]string]():                    []string{"other"},
		reflect.TypeFor[[]corev1.Toleration]():         []corev1.Toleration{{Key: "k"}},
		reflect.TypeFor[[]corev1.VolumeMount]():        []corev1.VolumeMount{{Name: "v", MountPath: "/there"}},
		reflect.TypeFor[[]corev1.Volume]():             []corev1.Volume{{Name: "v"}, {Name: "more"}},

		reflect.TypeFor[[]corev1.LocalObjectReference]():       []corev1.LocalObjectReference{{Name: "other"}},
		reflect.TypeFor[[]corev1.PersistentVolumeAccessMode](): []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
	}
	if value, ok := known[v.Type()]; ok {
		return reflect.ValueOf(value)
	}
	value := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		text := words[name]
		if text == "" {
			text = "other"
		}
		value.SetString(text)
	case reflect.Bool:
		value.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		value.SetInt(v.Int() + 5)
	default:
		t.Fatalf("no value is known for a field of the type %s", v.Type())
	}
	return value
}
