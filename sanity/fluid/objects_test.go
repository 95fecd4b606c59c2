package fluid

import (
	"fmt"
	"strings"
)

// object has a name, after which more of its metadata may follow.
func object(api, kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", api, kind, name, spec)
}

const fluidAPI = "data.fluid.io/v1alpha1"

// dataset has mounts, and more fields after them.
func dataset(name, mounts string, more ...string) string {
	return object(fluidAPI, "Dataset", name, "mounts: ["+mounts+"]"+after(more))
}

func after(fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	return ", " + strings.Join(fields, ", ")
}

// mount is one of a web server's directories, with its name.
func mount(dir, name string, more ...string) string {
	return fmt.Sprintf(`{mountPoint: "{web}/%s", name: %s%s}`, dir, name, after(more))
}

func alluxio(name string, workers int, fields ...string) string {
	return object(fluidAPI, "AlluxioRuntime", name, fmt.Sprintf("replicas: %d", workers)+after(fields))
}

// level is a tier with the watermarks that most documents have.
func level(medium, path, quota string) string {
	return fmt.Sprintf(`tieredstore: {levels: [{mediumtype: %s, path: "%s", quota: %s, high: "0.95", low: "0.7"}]}`,
		medium, path, quota)
}

// memory is the tier that most documents have.
func memory(quota string) string { return level("MEM", "/dev/shm", quota) }

func load(name, dataset string, more ...string) string {
	return object(fluidAPI, "DataLoad", name, `dataset: {name: `+dataset+`, namespace: "{ns}"}`+after(more))
}

// nodesWith restricts a Dataset to nodes with a label.
func nodesWith(label, value string) string {
	return fmt.Sprintf(`nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: %s, operator: In, `+
		`values: ["%s"]}]}]}}`, label, value)
}

// uses are the fields of a pod that mounts a claim at a directory.
func uses(image, claim, at string, container ...string) string {
	return fmt.Sprintf(`containers: [{name: main, image: "%s", volumeMounts: [{name: data, mountPath: %s}]%s}], `+
		`volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]`, image, at, after(container), claim)
}

// server is a pod that runs nginx with a claim at /data.
func server(name, claim string, more ...string) string {
	return object("v1", "Pod", name, uses("nginx:stable", claim, "/data")+after(more))
}

// shell is the field of a container that runs a script.
func shell(script string) string { return fmt.Sprintf("command: [sh, -c, %q]", script) }

// job runs a script once with a claim at /data.
func job(name, claim, script string, more ...string) string {
	pod := uses("busybox:stable", claim, "/data", shell(script)) + after(more)
	return object("batch/v1", "Job", name, "backoffLimit: 0, template: {spec: {restartPolicy: Never, "+pod+"}}")
}

// copying is the Job of most documents: it copies all of a directory of the claim, and says how long that took.
func copying(name, claim, dir string, more ...string) string {
	return job(name, claim, "set -x; time cp -r /data/"+dir+" ./ && find "+dir+" -type f | xargs sha256sum", more...)
}
