package fluid

import "testing"

// toldOnly are documents whose steps end at the sentence that says what is not there. Most of their Datasets need no
// Alluxio that runs, so no node takes pods meanwhile.
var toldOnly = []scene{
	{"told", []document{
		{
			name: "api_proxy", promise: "Alluxio's REST proxy, by `apiGateway`",
			later: "Alluxio's proxy process is not run",
			sentence: "`Unsupported`: these fields are set and have no effect: AlluxioRuntime.spec.apiGateway; " +
				"the column `API GATEWAY` is empty",
			steps: []step{
				closed,
				apply(
					dataset("spark", mount("spark/", "spark")),
					alluxio(
						"spark",
						1,
						memory("1Gi"),
						"properties: {alluxio.user.streaming.data.timeout: 300sec}",
						"apiGateway: {enabled: true}",
					),
				),
				condition(
					"alluxioruntime/spark",
					"Unsupported",
					"True",
					"these fields are set and have no effect: AlluxioRuntime.spec.apiGateway",
				),
				condition("dataset/spark", "Unsupported", "True", "AlluxioRuntime.spec.apiGateway"),
				sees("get alluxioruntimes.data.fluid.io -o jsonpath={.items[*].status.apiGateway.endpoint}", `^$`),
				cleared,
			},
		},
		{
			name: "image_pull_secrets", promise: "private images of Alluxio",
			differs: "by the runtime's own `imagePullSecrets`, " +
				"and not for all runtimes by a variable of the controller's",
			steps: []step{
				closed,
				apply(
					dataset("hbase", mount("hbase/stable/", "hbase")),
					alluxio("hbase", 1, memory("2Gi"), "imagePullSecrets: [{name: test-1}, {name: test-2}]"),
				),
				sees(
					"get statefulset hbase-master hbase-worker -o "+
						"jsonpath={.items[*].spec.template.spec.imagePullSecrets[*].name}",
					`^test-1 test-2 test-1 test-2$`,
				),
				cleared,
			},
		},
		{
			name: "dataset_across_namespace_with_csi", promise: "`dataset://` in another namespace, over one cache",
			later: "references are not served",
			sentence: "`Ready`: Dataset.spec.mounts[0].mountPoint: has the scheme dataset, which is not served; " +
				"accepted are abfs, ...",
			steps: []step{closed, reference("dataset://default/phy"), kubectl("delete datasets,alluxioruntimes " +
				"--all --timeout=180s")},
		},
		{
			name: "dataset_mount_dataset_subpath", promise: "`dataset://NAMESPACE/NAME/DIRECTORY`",
			later:    "references are not served; `pvc://NAME/DIRECTORY` is, in the same namespace",
			sentence: "the same",
			steps:    []step{closed, reference("dataset://default/phy/spark"), cleared},
		},
		{
			name: "backup_and_restore_metadata", promise: "DataBackup to a claim or a directory, `dataRestoreLocation`",
			later: "backups are not served; three masters keep what one loses",
			sentence: "no matches for kind \"DataBackup\"; " +
				"`Unsupported`: these fields are set and have no effect: Dataset.spec.dataRestoreLocation",
			steps: []step{
				closed,
				refused(
					object(
						fluidAPI,
						"DataBackup",
						"hbase-backup",
						"dataset: hbase, backupPath: pvc://backups/subpath1/subpath2/",
					),
					`no matches for kind "DataBackup" in version "data.fluid.io/v1alpha1"`,
				),
				refused(
					object(
						fluidAPI,
						"DataBackup",
						"hbase-backup",
						"dataset: hbase, backupPath: local:///data/subpath1/, runAs: {uid: 1201, gid: 1201, "+
							"user: a, group: a}",
					),
					`no matches for kind "DataBackup"`,
				),
				apply(
					dataset(
						"hbase",
						mount("hbase/stable/", "hbase"),
						"dataRestoreLocation: {path: pvc://pvc-local/subpath1/}",
					),
					alluxio("hbase", 2, memory("2Gi")),
				),
				condition(
					"dataset/hbase",
					"Unsupported",
					"True",
					"these fields are set and have no effect: Dataset.spec.dataRestoreLocation",
				),
				cleared,
			},
		},
		{
			name: "arm64", promise: "JuiceFS on arm64",
			cannot: "another runtime; millrace's own image is for arm64 as well",
			sentence: "no matches for kind \"JuiceFSRuntime\"; " +
				"spec.mounts[0].mountPoint: Invalid value: a mount point is SCHEME://HOST/PATH",
			steps: []step{
				refused(
					object(fluidAPI, "JuiceFSRuntime", "jfsdemo", "replicas: 1"),
					`no matches for kind "JuiceFSRuntime" in version "data.fluid.io/v1alpha1"`,
				),
				refused(
					dataset("jfsdemo", `{name: minio, mountPoint: "juicefs:///demo"}`),
					"spec.mounts[0].mountPoint",
					"a mount point is SCHEME://HOST/PATH",
				),
			},
		},
		{
			name: "cacheruntime_data_operations", promise: "loads of runtimes that a user defines",
			cannot:   "another runtime",
			sentence: "no matches for kind \"CacheRuntimeClass\"",
			steps: []step{
				refused(
					object(fluidAPI, "CacheRuntimeClass", "curvine", ""),
					`no matches for kind "CacheRuntimeClass" in version "data.fluid.io/v1alpha1"`,
				),
			},
		},
	}},
	{"prefetched", []document{{
		name: "file_prefetcher", promise: "listed files warm before the container starts",
		later: "the annotations do nothing; a DataLoad warms what its targets name",
		sentence: "the Event `WithoutEffect` of the pod: these labels and annotations have no effect here: " +
			"annotations[file-prefetcher.fluid.io/inject]",
		steps: []step{
			apply(
				dataset("mydataset", mount("zookeeper/stable/", "zookeeper", "path: /")),
				alluxio("mydataset", 2, memory("2Gi")),
			),
			kubectl("wait --for=condition=Ready dataset mydataset --timeout=240s"),
			apply(server(`demo, labels: {fuse.serverful.fluid.io/inject: "true"}, `+
				`annotations: {file-prefetcher.fluid.io/inject: "true", `+
				`file-prefetcher.fluid.io/file-list: "pvc://mydataset/*.tar.gz"}`, "mydataset")),
			running("demo"),
			event(
				"Pod/demo",
				"WithoutEffect",
				"annotations[file-prefetcher.fluid.io/inject]",
				"annotations[file-prefetcher.fluid.io/file-list]",
				"labels[fuse.serverful.fluid.io/inject]",
			),
			has("demo", "/data", web["apache/zookeeper/stable"]),
		},
	}}},
}

// closed keeps pods off the scene's nodes until the document has ended.
func closed(t *testing.T, p *place) {
	afterwards("uncordon {node1} {node2}")(t, p)
	kubectl("cordon {node1} {node2}")(t, p)
}

// reference is a Dataset of a Dataset, and what is said of it.
func reference(to string) step {
	return func(t *testing.T, p *place) {
		applying(dataset("refdemo", `{mountPoint: "`+to+
			`", name: fusedemo, path: "/"}`), alluxio("refdemo", 1, memory("1Gi")))(t, p)
		condition("dataset/refdemo", "Ready", "False", "InvalidSpec", "Dataset.spec.mounts[0].mountPoint: has the "+
			"scheme dataset, which is not served; accepted are")(t, p)
		shows("refdemo", `Failed`)(t, p)
	}
}
