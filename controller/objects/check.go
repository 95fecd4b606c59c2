package objects

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// longestName leaves room for what is added to a Dataset's name: -worker, an ordinal, a revision.
const longestName = 45

var namePattern = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)

func checkNames(in Input) []Problem {
	if name := in.Dataset.Name; len(name) > longestName || !namePattern.MatchString(name) {
		return []Problem{{
			"Dataset.metadata.name",
			fmt.Sprintf("%q is no DNS label that begins with a letter and has at most %d characters", name,
				longestName),
		}}
	}
	return nil
}

// checkResources looks for what cannot run.
func checkResources(spec *v1alpha1.AlluxioRuntimeSpec, tiers []tier) []Problem {
	var problems []Problem
	if limit, ok := spec.Worker.Resources.Limits[corev1.ResourceMemory]; ok && limit.Value() <= memoryTier(tiers) {
		problems = append(problems, Problem{
			"AlluxioRuntime.spec.worker.resources.limits.memory",
			fmt.Sprintf("is %s, and the tiers in memory need %d bytes of it; give the worker more", &limit,
				memoryTier(tiers)),
		})
	}
	problems = append(problems, checkBlockSize(spec, tiers)...)
	problems = append(problems, checkReserve(spec, tiers)...)
	volumes := map[string]bool{}
	for i := range spec.Volumes {
		volumes[spec.Volumes[i].Name] = true
	}
	for field, part := range map[string]*v1alpha1.ComponentSpec{
		"master": &spec.Master.ComponentSpec, "worker": &spec.Worker, "jobMaster": &spec.JobMaster,
		"jobWorker": &spec.JobWorker,
	} {
		for i, m := range part.VolumeMounts {
			if !volumes[m.Name] {
				problems = append(problems, Problem{fmt.Sprintf("AlluxioRuntime.spec.%s.volumeMounts[%d].name", field,
					i), fmt.Sprintf("names the volume %q, which is not among spec.volumes", m.Name)})
			}
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return compare(a.Field, b.Field) })
	return problems
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func isZero(v any) bool { return reflect.ValueOf(v).Elem().IsZero() }

// unsupported are the fields that are set and have no effect. The API's comments name each of them.
func unsupported(d *v1alpha1.Dataset, spec *v1alpha1.AlluxioRuntimeSpec) []string {
	job := func(c v1alpha1.ComponentSpec) v1alpha1.ComponentSpec {
		// What a job server's container has; the pod is the master's or worker's.
		c.JvmOptions, c.Properties, c.Ports, c.Resources, c.Env, c.VolumeMounts = nil, nil, nil,
			corev1.ResourceRequirements{}, nil, nil
		return c
	}
	fuse := spec.Fuse
	fuse.NodeSelector = nil
	if fuse.CleanPolicy == unmountOnDemand {
		fuse.CleanPolicy = ""
	}
	jobMaster, jobWorker := job(spec.JobMaster), job(spec.JobWorker)
	set := map[string]bool{
		"Dataset.spec.runtimes":            len(d.Spec.Runtimes) > 0,
		"Dataset.spec.dataRestoreLocation": d.Spec.DataRestoreLocation != nil,
		"AlluxioRuntime.spec.apiGateway":   !isZero(&spec.APIGateway),
		"AlluxioRuntime.spec.initUsers":    !isZero(&spec.InitUsers),
	}
	for field, v := range map[string]any{"fuse": &fuse, "jobMaster": &jobMaster, "jobWorker": &jobWorker} {
		for _, name := range fieldsSet(v) {
			set["AlluxioRuntime.spec."+field+"."+name] = true
		}
	}
	set["AlluxioRuntime.spec.worker.replicas"] = spec.Worker.Replicas > 0 && spec.Worker.Replicas != spec.Replicas
	set["AlluxioRuntime.spec.master.enabled"] = spec.Master.Enabled
	set["AlluxioRuntime.spec.worker.enabled"] = spec.Worker.Enabled
	for i := range spec.TieredStore.Levels {
		level := &spec.TieredStore.Levels[i]
		field := fmt.Sprintf("AlluxioRuntime.spec.tieredstore.levels[%d].", i)
		set[field+"alias"] = level.Alias != ""
		set[field+"volumeSource"] = level.VolumeType != v1alpha1.EmptyDir && !isZero(&level.VolumeSource)
	}
	for i := range spec.Volumes {
		set[fmt.Sprintf("AlluxioRuntime.spec.volumes[%d]", i)] = !mounted(spec, spec.Volumes[i].Name)
	}
	if as := spec.RunAs; as != nil {
		set["AlluxioRuntime.spec.runAs.group"] = as.GroupName != ""
	}
	unsupportedOfDataset(&d.Spec, set)
	maps.DeleteFunc(set, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(set))
}

// unmountOnDemand is the clean policy that there is: a node's mount ends with the last pod that uses it.
const unmountOnDemand = "OnDemand"

// unsupportedOfDataset says of the fields of a Dataset whether they are set and have no effect.
func unsupportedOfDataset(d *v1alpha1.DatasetSpec, set map[string]bool) {
	if o := d.Owner; o != nil {
		set["Dataset.spec.owner.user"], set["Dataset.spec.owner.group"] = o.UserName != "", o.GroupName != ""
	}
	taken := false
	for i := range d.Mounts {
		m := &d.Mounts[i]
		field := fmt.Sprintf("Dataset.spec.mounts[%d].", i)
		if k := kindOf(m.MountPoint); k != onNode && k != inClaim {
			taken = true
			continue
		}
		set[field+"options"], set[field+"encryptOptions"] = len(m.Options) > 0, len(m.EncryptOptions) > 0
	}
	if writing(d.AccessModes) {
		set["Dataset.spec.accessModes (the volume is read-only)"] = true
	}
	set["Dataset.spec.sharedOptions"] = len(d.SharedOptions) > 0 && !taken
	set["Dataset.spec.sharedEncryptOptions"] = len(d.SharedEncryptOptions) > 0 && !taken
}

// mounted reports whether a container mounts a volume of the runtime.
func mounted(spec *v1alpha1.AlluxioRuntimeSpec, volume string) bool {
	for _, part := range []*v1alpha1.ComponentSpec{
		&spec.Master.ComponentSpec, &spec.Worker, &spec.JobMaster,
		&spec.JobWorker,
	} {
		for i := range part.VolumeMounts {
			if part.VolumeMounts[i].Name == volume {
				return true
			}
		}
	}
	return false
}

// fieldsSet are the JSON names of the fields of a struct, to which v points, that are not zero.
func fieldsSet(v any) []string {
	var found []string
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		field := value.Type().Field(i)
		if value.Field(i).IsZero() {
			continue
		}
		if field.Anonymous {
			found = append(found, fieldsSet(value.Field(i).Addr().Interface())...)
			continue
		}
		found = append(found, jsonName(field))
	}
	return found
}

func jsonName(f reflect.StructField) string {
	tag := f.Tag.Get("json")
	for i := range len(tag) {
		if tag[i] == ',' {
			return tag[:i]
		}
	}
	return tag
}
