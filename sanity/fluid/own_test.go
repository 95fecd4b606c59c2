package fluid

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// prow is where most of Fluid's own tests are.
const prow = "test/prow"

// zookeeper is the Dataset of Fluid's own tests, with its runtime.
func zookeeper(mounts ...string) string {
	all := append([]string{mount("zookeeper/stable/", "zookeeper")}, mounts...)
	return dataset("hbase", strings.Join(all, ", ")) + "---\n" + fluidRuntime("hbase", "2Gi")
}

// fluidRuntime has the watermarks of Fluid's own tests.
func fluidRuntime(name, quota string) string {
	return alluxio(
		name,
		1,
		`tieredstore: {levels: [{mediumtype: MEM, path: /dev/shm, quota: `+quota+`, high: "0.99", low: "0.99"}]}`,
	)
}

// ready is what Fluid's tests look for before they go on: the phase, the volume and the claim.
func ready(dataset string) step {
	return func(t *testing.T, p *place) {
		bound(dataset)(t, p)
		sees("get pv {ns}-"+dataset+" -o name", `^persistentvolume/`)(t, p)
		sees("get pvc "+dataset+" -o name", `^persistentvolumeclaim/`)(t, p)
	}
}

// ownTests are Fluid's own tests about Alluxio. Each makes its Dataset; here those that make the same share it.
var ownTests = []scene{
	{"prow", []document{
		{
			name: "alluxio_webufs", of: prow, promise: "a Job copies a web mirror's directory",
			steps: []step{
				apply(zookeeper()),
				ready("hbase"),
				apply(copying("fluid-e2e-job-test", "hbase", "zookeeper")),
				done("fluid-e2e-job-test"),
				logged("job/fluid-e2e-job-test", "zookeeper", web["apache/zookeeper/stable"]),
			},
		},
		{
			name: "cron_dataload", of: prow, promise: "a load by the minute, `operationRef` while one runs, " +
				"then all cached",
			differs: "there is no CronJob, for which the test looks too: the controller keeps the schedule itself",
			sentence: "`Waiting`: Scheduled: waits for the next time of its schedule; " +
				"`LastScheduleTime` and `LastSuccessfulTime` in `kubectl describe`",
			steps: []step{
				apply(zookeeper()),
				ready("hbase"),
				apply(load("test-dataload", "hbase", `loadMetadata: true, policy: Cron, schedule: "* * * * *"`)),
				condition(
					"dataload/test-dataload",
					"Waiting",
					"True",
					"Scheduled",
					"waits for the next time of its schedule",
				),
				operationRef,
				sees(
					"get dataset hbase -o jsonpath={.status.ufsTotal}={.status.cacheStates.cached}",
					`^(5\.00MiB)=5\.00MiB$`,
				),
				sees("get dataload test-dataload -o jsonpath={.status.lastSuccessfulTime}", `.`),
				sees(
					"get dataload test-dataload -o "+
						"jsonpath={.metadata.ownerReferences[*].kind}/{.metadata.ownerReferences[*].name}",
					`^Dataset/hbase$`,
				),
				apply(server("nginx-test", "hbase")),
				running("nginx-test"),
			},
		},
		{
			name: "data_operation_clean_up", of: prow, promise: "a load that is gone 40 seconds after its end",
			steps: []step{
				apply(zookeeper()),
				ready("hbase"),
				apply(load("test-dataload", "hbase", "loadMetadata: true, ttlSecondsAfterFinished: 40")),
				loaded("test-dataload", "hbase"),
				gone("dataload test-dataload"),
			},
		},
		{
			name: "fuse_recovery", of: prow, promise: "a pod lists its files before and after the FUSE process dies",
			changed: "the Dataset's name; the node's agent for a FUSE pod",
			differs: "always on: there is no feature gate, and no Event `Fuse recover`, for no mount breaks",
			steps: []step{
				apply(zookeeper()),
				ready("hbase"),
				apply(server(`nginx-test, labels: {fuse.serverful.fluid.io/inject: "true"}`, "hbase")),
				running("nginx-test"),
				sees("exec nginx-test -- ls /data/zookeeper", `apache-zookeeper-3.8.4.tar.gz`),
				agentKilled("nginx-test"),
				has("nginx-test", "/data/zookeeper", web["apache/zookeeper/stable"]),
			},
		},
		{
			name: "alluxio_dynamic_mountpoint", of: prow, promise: "mounts added and removed while the Dataset is " +
				"bound",
			changed: "the Dataset's name",
			steps: []step{
				apply(zookeeper(mount("hadoop/current/", "hadoop"))),
				ready("hbase"),
				within(start, "exec hbase-master-0 -- alluxio fs mount", `/zookeeper`, `/hadoop`),
				kubectl(`patch dataset hbase --type=merge -p ` +
					`'{"spec":{"mounts":[{"mountPoint":"{web}/zookeeper/stable/","name":"zookeeper"},` +
					`{"mountPoint":"{web}/hbase/stable/","name":"hbase"}]}}'`),
				within(
					start,
					"get dataset hbase -o jsonpath={.status.phase}/{.status.mounts[*].name}",
					`^Bound/zookeeper hbase$`,
				),
				killed("hbase-master-0"),
				bound("hbase"),
				apply(copying("after-the-crash", "hbase", "hbase")),
				done("after-the-crash"),
				logged("job/after-the-crash", "hbase", web["apache/hbase/stable"]),
				kubectl("delete job after-the-crash"),
				kubectl("delete dataset hbase --timeout=180s"),
				gone("alluxioruntimes"),
			},
		},
	}},
	{"symlink", []document{
		{
			name: "csi_nodepublish_symlink", of: prow, promise: "the volume is a symbolic link on the node",
			cannot: "volumes are bind mounts, so that they outlive what serves them; " +
				"the test reads the log of Fluid's plugin",
			sentence: "`Unsupported`: these fields are set and have no effect: " +
				"AlluxioRuntime.metadata.annotations[data.fluid.io/metadataList]",
			steps: []step{
				apply(dataset("hbase", mount("zookeeper/stable/", "zookeeper"))),
				apply(fluidRuntime(`hbase, annotations: {data.fluid.io/metadataList: "[{\"Labels\": `+
					`{\"fluid.io/node-publish-method\": \"symlink\"}, `+
					`\"selector\": { \"kind\": \"PersistentVolume\"}}]"}`, "2Gi")),
				condition(
					"alluxioruntime/hbase",
					"Unsupported",
					"True",
					"have no effect",
					"AlluxioRuntime.metadata.annotations[data.fluid.io/metadataList]",
				),
				ready("hbase"),
				apply(server("nginx-test", "hbase")),
				running("nginx-test"),
				apply(copying("fluid-e2e-job-test", "hbase", "zookeeper")),
				done("fluid-e2e-job-test"),
				logged("job/fluid-e2e-job-test", "zookeeper", web["apache/zookeeper/stable"]),
			},
		},
		{
			name: "webhook_mutating", of: prow, promise: "a pod gets an affinity to the nodes with its data",
			changed: "the Dataset's name",
			later:   "pods are not changed",
			sentence: "the Event `WithoutEffect` of the pod: these labels and annotations have no effect here: " +
				"labels[fuse.serverful.fluid.io/inject]",
			steps: []step{
				apply(dataset("hbase", mount("zookeeper/stable/", "zookeeper")), fluidRuntime("hbase", "2Gi")),
				ready("hbase"),
				apply(server(`nginx-test, labels: {fuse.serverful.fluid.io/inject: "true"}`, "hbase")),
				running("nginx-test"),
				event(
					"Pod/nginx-test",
					"WithoutEffect",
					"these labels and annotations have no effect here: labels[fuse.serverful.fluid.io/inject]",
				),
				sees("get pod nginx-test -o jsonpath={.spec.affinity}", `^$`),
			},
		},
		{
			name: "alluxio", of: "test/gha-e2e", promise: "a Job finds the claim's directory not empty, " +
				"with a tier on disk",
			steps: []step{
				apply(
					dataset("zookeeper", mount("zookeeper/stable/", "zookeeper")),
					alluxio("zookeeper", 1, level("SSD", "/srv/tmp/alluxio", "1Gi")),
				),
				bound("zookeeper"),
				apply(object("batch/v1", "Job", "fluid-test", "backoffLimit: 1, "+
					"template: {spec: {restartPolicy: Never, automountServiceAccountToken: false, "+
					uses("busybox:stable", "zookeeper", "/data", shell(`set -ex; test -n "$(ls /data)"`),
						"resources: {limits: {memory: 512Mi, ephemeral-storage: 5Gi}}")+"}}")),
				done("fluid-test"),
			},
		},
	}},
	{"subpath", []document{{
		name: "dataset_pvc_subpath", of: prow, promise: "a Dataset over a directory of another Dataset's claim",
		steps: []step{
			apply(
				dataset("hbase", mount("zookeeper/stable/", "hbase"), "placement: Shared"),
				fluidRuntime("hbase", "2Gi"),
			),
			ready("hbase"),
			apply(
				dataset(
					"pvc-subpath",
					`{name: pvc-subpath, mountPoint: "pvc://hbase/hbase", path: "/"}`,
					"placement: Shared",
				),
				fluidRuntime("pvc-subpath", "500Mi"),
			),
			ready("pvc-subpath"),
			apply(server("nginx-test", "pvc-subpath")),
			running("nginx-test"),
			sees("exec nginx-test -- ls -l /data", `zookeeper`),
			has("nginx-test", "/data", web["apache/zookeeper/stable"]),
			kubectl("delete pod nginx-test --grace-period=1"),
			kubectl("delete dataset pvc-subpath --timeout=180s"),
			kubectl("delete dataset hbase --timeout=180s"),
		},
	}}},
}

// operationRef watches a load by the minute until one has ended: while it runs, the Dataset names it, and not else.
func operationRef(t *testing.T, p *place) {
	named := false
	p.Await(t, start, "a load by its schedule", func() error {
		out, err := p.Cluster.Kubectl(t.Context(), p.line("get dataset/hbase dataload/test-dataload -o "+
			"'jsonpath={.items[0].status.operationRef.DataLoad}/{.items[1].status.phase}'")...)
		ref, phase, _ := strings.Cut(out, "/")
		named = named || ref == "test-dataload"
		switch {
		case err != nil:
			return err
		case phase == "Failed":
			t.Fatal("the load has failed")
		case phase != "Complete":
			return errors.New(out)
		case ref != "":
			return fmt.Errorf("a load that is complete is named: %s", out)
		}
		return nil
	})
	if !named {
		t.Log("the load was over before a look at the Dataset")
	}
}
