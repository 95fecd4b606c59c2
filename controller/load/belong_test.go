package load

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestALoadIsItsObjects has a load under way be that of its object and its Dataset alone: another object of the name,
// or another Dataset, or one that is being deleted, ends it.
func TestALoadIsItsObjects(t *testing.T) {
	key := types.NamespacedName{Namespace: "ns", Name: "l"}
	object := func(uid types.UID) *v1alpha1.DataLoad {
		return &v1alpha1.DataLoad{ObjectMeta: metav1.ObjectMeta{UID: uid}}
	}
	dataset := func(uid types.UID) *v1alpha1.Dataset {
		return &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{UID: uid}}
	}
	going := dataset("d")
	going.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for name, tc := range map[string]struct {
		load    types.UID
		dataset *v1alpha1.Dataset
		goesOn  bool
	}{
		"the same":                {"l", dataset("d"), true},
		"another object":          {"other", dataset("d"), false},
		"another Dataset":         {"l", dataset("other"), false},
		"a Dataset that is going": {"l", going, false},
		"no Dataset":              {"l", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			under := &run{load: "l", dataset: "d", cancel: cancel}
			r := &Reconciler{runs: map[types.NamespacedName]*run{key: under}}
			if got := r.run(key, object(tc.load), tc.dataset); (got == under) != tc.goesOn ||
				got != nil && got != under {
				t.Errorf("the load under way is %+v", got)
			}
			if (ctx.Err() == nil) != tc.goesOn || (r.runs[key] == nil) == tc.goesOn {
				t.Errorf("its context is %v, and kept are %v", ctx.Err(), r.runs)
			}
		})
	}
}

// TestOwner finds the Dataset among a load's owners.
func TestOwner(t *testing.T) {
	l := &v1alpha1.DataLoad{}
	if owner(l) != "" || belongsToAnother(l, &v1alpha1.Dataset{}) {
		t.Error("a load without an owner has one")
	}
	l.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: v1alpha1.DatasetKind, UID: "other"},
		{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.DatasetKind, UID: "d"},
	}
	if owner(l) != "d" || !belongsToAnother(l, &v1alpha1.Dataset{}) ||
		belongsToAnother(l, &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{UID: "d"}}) {
		t.Errorf("the owner is %q", owner(l))
	}
}
