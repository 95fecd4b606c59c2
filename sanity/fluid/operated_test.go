package fluid

import "fmt"

// reading reads all of a directory again and again, and ends at the first error.
const reading = "set -eo pipefail; sum() { cat /data/*.tar.gz | sha256sum; }; first=$(sum); n=0; " +
	"while :; do now=$(sum); test \"$now\" = \"$first\"; n=$((n+1)); echo round $n; sleep 0.1; done"

// operated are documents about what a Dataset's owner does with it.
var operated = []scene{
	{"warmup", []document{{
		name: "data_warmup", promise: "DataLoad: whole, by path, with copies, with metadata",
		differs: "the phase that the document calls Loading is `Executing`, as in Fluid's newer documents; " +
			"the load runs in no pod",
		steps: []step{
			apply(dataset("spark", mount("spark/", "spark")), alluxio("spark", 2, memory("2Gi"))),
			bound("spark"),
			shows("spark", `8\.00MiB 0\.00B 4\.00GiB 0\.0% Bound`),
			// The order is another, for only what is not cached shows what a load brings.
			apply(load("spark-dataload", "spark", "target: [{path: /spark/spark-2.4.7}, "+
				"{path: /spark/spark-3.0.1/pyspark-3.0.1.tar.gz}]")),
			loaded("spark-dataload", "spark"),
			shows("spark", `8\.00MiB 6\.00MiB 4\.00GiB 75\.0% Bound`),
			kubectl("delete dataload spark-dataload"),
			apply(load("spark-dataload", "spark", "target: [{path: /spark/spark-2.4.7, replicas: 1}, "+
				"{path: /spark/spark-3.0.1/pyspark-3.0.1.tar.gz, replicas: 2}]")),
			loaded("spark-dataload", "spark"),
			shows("spark", `8\.00MiB 8\.00MiB`),
			kubectl("delete dataload spark-dataload"),
			apply(load("spark-dataload", "spark")),
			event("DataLoad/spark-dataload", "DataLoadJobStarted"),
			loaded("spark-dataload", "spark"),
			shows("spark", `8\.00MiB 10\.00MiB 4\.00GiB 100\.0% Bound`),
			kubectl("delete dataload spark-dataload"),
			published("apache/spark/spark-3.0.1/later.tgz", 1<<20),
			apply(load("spark-dataload", "spark", "loadMetadata: true, target: [{path: /, replicas: 1}]")),
			loaded("spark-dataload", "spark"),
			apply(server("nginx", "spark")),
			running("nginx"),
			warm(has("nginx", "/data/spark/spark-3.0.1", tree{"later.tgz": 1 << 20, "spark-3.0.1.tgz": 2 << 20})),
		},
	}}},
	{"scaling", []document{
		{
			name: "dataset_scaling", promise: "`kubectl scale` of workers, with conditions and a capacity that follow",
			steps: []step{
				apply(hbase(1)),
				bound("hbase"),
				allReady("hbase-master-0", "hbase-worker-0"),
				shows("hbase", `\S+ \S+ 2\.00GiB`),
				parts("hbase", 1, 1, 0),
				kubectl("scale alluxioruntime hbase --replicas=2"),
				allReady("hbase-master-0", "hbase-worker-0", "hbase-worker-1"),
				shows("hbase", `\S+ \S+ 4\.00GiB`),
				parts("hbase", 1, 2, 0),
				condition("alluxioruntime/hbase", "WorkersScaledOut", "True", "from 1 workers to 2"),
				event("AlluxioRuntime/hbase", "WorkersScaledOut"),
				kubectl("scale alluxioruntime hbase --replicas=1"),
				allReady("hbase-master-0", "hbase-worker-0"),
				shows("hbase", `\S+ \S+ 2\.00GiB`),
				parts("hbase", 1, 1, 0),
				condition("alluxioruntime/hbase", "WorkersScaledIn", "True", "from 2 workers to 1"),
				event("AlluxioRuntime/hbase", "WorkersScaledIn"),
			},
		},
		{
			name: "automatic_clean_up_data_operation", promise: "a DataLoad deleted `ttlSecondsAfterFinished` after " +
				"its end",
			changed: "20 seconds for 300",
			steps: []step{
				apply(hbase(1)),
				bound("hbase"),
				apply(load("hbase-dataload", "hbase", "ttlSecondsAfterFinished: 20")),
				loaded("hbase-dataload", "hbase"),
				gone("dataload hbase-dataload"),
			},
		},
		{
			name: "other_volumes", promise: "volumes of the user's in masters and workers",
			changed: "the document's YAML has a tab in it",
			steps: []step{
				kubectl("create secret generic fluid-secret --from-literal=username=test --from-literal=password=test"),
				apply(hbase(1, "master: {volumeMounts: [{name: secret-volume, readOnly: true, "+
					"mountPath: /etc/secret-volume}]}", "volumes: [{name: secret-volume, "+
					"secret: {secretName: fluid-secret}}]")),
				within(start, "exec hbase-master-0 -- cat /etc/secret-volume/username", `^test$`),
				bound("hbase"),
			},
		},
	}},
	{"available", []document{{
		name:    "master_high_avaliability", //nolint:misspell // It is the document's name.
		promise: "three masters, and reads that go on when the leading one dies",
		steps: []step{
			apply(dataset("hbase", mount("hbase/stable/", "hbase"))),
			shows("hbase", `NotBound`),
			apply(alluxio("hbase", 2, memory("2Gi"), "master: {replicas: 3}")),
			bound("hbase"),
			allReady("hbase-master-0", "hbase-master-1", "hbase-master-2", "hbase-worker-0", "hbase-worker-1"),
			shows("hbase", `\S+MiB 0\.00B 4\.00GiB 0\.0% Bound`),
			parts("hbase", 3, 2, 0),
			sees(
				"exec hbase-master-0 -- alluxio fs masterInfo",
				`(?m)^Current leader master: hbase-master-\d`,
				`hbase-master-0`, `hbase-master-1`, `hbase-master-2`,
			),
			apply(copying("fluid-copy-test", "hbase", "hbase")),
			done("fluid-copy-test"),
			sees("get dataset hbase", ` 100\.0% `),
			kubectl("delete job fluid-copy-test"),
			leaderKilled,
			warm(apply(copying("fluid-copy-test", "hbase", "hbase")), done("fluid-copy-test")),
			logged("job/fluid-copy-test", "hbase", web["apache/hbase/stable"]),
		},
	}}},
	{"metadata", []document{{
		name: "metadata_sync", promise: "no walk of the source until it is asked for",
		steps: []step{
			apply(dataset("hbase", mount("hbase/stable/", "hbase"))),
			apply(alluxio("hbase", 1, memory("2Gi"), "management: {metadataSyncPolicy: {autoSync: false}}")),
			bound("hbase"),
			shows("hbase", `0\.00B 2\.00GiB Bound`),
			kubectl(`patch alluxioruntime hbase --type=json -p ` +
				`'[{"op":"replace","path":"/spec/management/metadataSyncPolicy/autoSync","value":true}]'`),
			shows("hbase", `\d+\.\d\dMiB 0\.00B 2\.00GiB 0\.0% Bound`),
		},
	}}},
	{"demo", []document{
		{
			name: "data_accessmodes", promise: "`accessModes: ReadWriteMany`, written through",
			later:    "mounts are read-only whatever the access mode is",
			sentence: "the program gets `Read-only file system`",
			steps: []step{
				apply(demo()),
				bound("demo"),
				sees("get pvc demo", ` RWX `),
				apply(server("writer", "demo")),
				running("writer"),
				sees("exec writer -- sh -c 'touch /data/x 2>&1 || true'", `Read-only file system`),
				has("writer", "/data", web["apache/hbase/stable"]),
			},
		},
		{
			name: "application_controller", promise: "a Job in a pod with a FUSE sidecar ends when its own " +
				"container does",
			changed: "a Dataset of Alluxio's for one of JuiceFS's; the Job reads, for the claim is read-only",
			differs: "there is no sidecar to end; an Event of the pod says that the labels do nothing",
			steps: []step{
				apply(demo()),
				bound("demo"),
				apply(object("batch/v1", "Job", "demo-app", `backoffLimit: 4, `+
					`template: {metadata: {labels: {serverless.fluid.io/inject: "true", `+
					`fluid.io/managed-by: fluid}}, spec: {restartPolicy: Never, `+
					uses("busybox:stable", "demo", "/data", shell("sha256sum /data/*"))+`}}`)),
				done("demo-app"),
				logged("job/demo-app", "/data", web["apache/hbase/stable"]),
				sees("get pods -l job-name=demo-app -o jsonpath={.items[*].spec.containers[*].name}", `^main$`),
				sees("get pods -l job-name=demo-app", ` 0/1 +Completed `),
				sees(
					"get events --field-selector reason=WithoutEffect",
					`pod/demo-app-\S+ .*labels\[fluid.io/managed-by\], labels\[serverless.fluid.io/inject\]`,
				),
			},
		},
		{
			name: "fuse_recover", promise: "reads go on after the FUSE process dies",
			changed: "a Dataset of Alluxio's for one of JuiceFS's; the node's agent for a FUSE pod",
			differs: "always on, with no error in between; so there is no Event `FuseRecover`, " +
				"and nothing has to be injected",
			steps: []step{
				apply(demo()),
				bound("demo"),
				apply(object("v1", "Pod", `demo-app, labels: {fuse.serverful.fluid.io/inject: "true"}`,
					"restartPolicy: Never, "+uses("busybox:stable", "demo", "/data", shell(reading)))),
				sees("logs demo-app --tail=1", `^round \d+\n$`),
				agentKilled("demo-app"),
				goesOn("demo-app"),
			},
		},
	}},
	{"dataflow", []document{{
		name: "dataflow_affinity", promise: "`runAfter`: a chain of loads, each placed where the one before ran",
		changed: "names in small letters, as Kubernetes wants them",
		later:   "DataProcess is not served, and a load runs in no pod that could be placed",
		sentence: "`Unsupported`: these fields are set and have no effect: runAfter.affinityStrategy; " +
			"no matches for kind \"DataProcess\"; spec.runAfter.kind DataProcess is not supported",
		steps: []step{
			apply(dataset("phy", mount("flink", "flink")), alluxio("phy", 1, memory("1Gi"))),
			apply(load("loadb", "phy", "runAfter: {kind: DataLoad, name: loada, affinityStrategy: {policy: Require, "+
				"requires: [{name: node.kubernetes.io/instance-type}]}}")),
			bound("phy"),
			condition("dataload/loadb", "Waiting", "True", "waits for the DataLoad loada to be complete"),
			apply(load("loada, annotations: {data-operation.fluid.io/affinity.labels: kubernetes.io/hostname}", "phy",
				`affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: `+
					`[{matchExpressions: [{key: node.kubernetes.io/instance-type, operator: In, values: [GPU]}]}]}}}`)),
			loaded("loada", "phy"),
			loaded("loadb", "phy"),
			condition("dataload/loadb", "Unsupported", "True", "have no effect", "runAfter.affinityStrategy"),
			condition("dataload/loada", "Unsupported", "True", "have no effect", "affinity"),
			refused(
				object(
					fluidAPI,
					"DataProcess",
					"step2-trtllm-convert",
					"runAfter: {kind: DataProcess, name: step1-download-model}",
				),
				`no matches for kind "DataProcess"`,
			),
			apply(load("step3-warmup-cache", "phy", `runAfter: {kind: DataProcess, name: step2-trtllm-convert, `+
				`namespace: "{ns}"}`)),
			condition(
				"dataload/step3-warmup-cache",
				"Failed",
				"True",
				"spec.runAfter.kind DataProcess is not supported; accepted is DataLoad",
			),
		},
	}}},
}

// hbase is the Dataset of many documents, with its runtime.
func hbase(workers int, fields ...string) string {
	return dataset("hbase", mount("hbase/stable/", "hbase")) + "---\n" +
		alluxio("hbase", workers, append([]string{memory("2Gi")}, fields...)...)
}

// demo is a Dataset of one mount at its root.
func demo() string {
	return dataset("demo", mount("hbase/stable/", "hbase", `path: "/"`), "accessModes: [ReadWriteMany]") + "---\n" +
		alluxio("demo", 1, memory("2Gi"))
}

// loaded waits until a load is complete.
func loaded(load, dataset string) step {
	return within(start, "get dataload "+load, fmt.Sprintf(`(?m)^%s +%s +Complete `, load, dataset))
}
