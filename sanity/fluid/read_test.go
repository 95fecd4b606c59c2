package fluid

import (
	"testing"

	"millrace.io/millrace/deploy"
)

// read are documents about what a claim gives: the same files, faster the second time.
var read = []scene{
	{"hbase", []document{
		{
			name: "accelerate_data_accessing", promise: "a web mirror as a claim, cold then warm",
			steps: []step{
				apply(dataset("hbase", mount("hbase/stable/", "hbase"))),
				shows("hbase", `NotBound`),
				apply(alluxio("hbase", 2, memory("2Gi"))),
				bound("hbase"),
				allReady("hbase-master-0", "hbase-worker-0", "hbase-worker-1"),
				shows("hbase", `\d+\.\d\dMiB 0\.00B 4\.00GiB 0\.0% Bound`),
				parts("hbase", 1, 2, 0),
				sees("get pv {ns}-hbase", `(?m)^{ns}-hbase +100Gi +RWX +Retain +Bound +{ns}/hbase `),
				sees("get pvc hbase", `(?m)^hbase +Bound +{ns}-hbase +100Gi +RWX `),
				apply(server("nginx", "hbase")),
				running("nginx"),
				sees(
					"exec nginx -- ls -1 /data/hbase",
					`^CHANGES.md\nRELEASENOTES.md\napi_compare_2.2.5RC0_to_2.2.4.html\nhbase-2.2.5-bin.tar.gz\n`+
						`hbase-2.2.5-client-bin.tar.gz\nhbase-2.2.5-src.tar.gz\n$`,
				),
				sees("exec nginx -- du -h /data/hbase/hbase-2.2.5-bin.tar.gz", `^8\.0M\s`),
				apply(copying("fluid-copy-test", "hbase", "hbase")),
				done("fluid-copy-test"),
				sees("logs job/fluid-copy-test", `(?m)^real\s`),
				logged("job/fluid-copy-test", "hbase", web["apache/hbase/stable"]),
				shows("hbase", `(\S+MiB) \S+MiB 4\.00GiB 100\.0% Bound`),
				kubectl("delete job fluid-copy-test"),
				warm(apply(copying("fluid-copy-test", "hbase", "hbase")), done("fluid-copy-test")),
				logged("job/fluid-copy-test", "hbase", web["apache/hbase/stable"]),
			},
		},
		{
			name: "fuse_clean_policy", promise: "when a node's mount goes: with its last pod, or with the runtime",
			differs: "there is no FUSE pod; " +
				"`READY FUSES` counts nodes with pods. What `OnDemand` asks for is what happens always",
			sentence: "`Unsupported`: these fields are set and have no effect: AlluxioRuntime.spec.fuse.cleanPolicy",
			steps: []step{
				apply(
					dataset("hbase", mount("hbase/stable/", "hbase")),
					alluxio("hbase", 2, memory("2Gi"), "fuse: {cleanPolicy: OnDemand}"),
				),
				bound("hbase"),
				allReady("hbase-master-0", "hbase-worker-0", "hbase-worker-1"),
				apply(server("nginx", "hbase")),
				running("nginx"),
				mounted("hbase", 1),
				parts("hbase", 1, 2, 1),
				kubectl("delete pod nginx --grace-period=1"),
				mounted("hbase", 0),
				parts("hbase", 1, 2, 0),
				apply(alluxio("hbase", 2, memory("2Gi"), "fuse: {cleanPolicy: OnRuntimeDeleted}")),
				condition(
					"alluxioruntime/hbase",
					"Unsupported",
					"True",
					"have no effect",
					"AlluxioRuntime.spec.fuse.cleanPolicy",
				),
				condition("dataset/hbase", "Unsupported", "True", "AlluxioRuntime.spec.fuse.cleanPolicy"),
				kubectl("delete alluxioruntime hbase --timeout=180s"),
				gone("pods"),
				gone("alluxioruntimes"),
				kubectl("delete dataset hbase --timeout=180s"),
			},
		},
	}},
	{"tiers", []document{
		{
			name: "accelerate_data_by_mem_or_ssd", promise: "tiers in memory or on SSD, warm by a DataLoad",
			steps: []step{
				apply(
					dataset("hbase-mem", mount("hbase/stable/", "hbase-mem")),
					alluxio("hbase-mem", 1, tier("MEM", "/dev/shm")),
				),
				apply(
					alluxio("hbase-ssd", 1, tier("SSD", "/srv/mnt/ssd")),
					dataset("hbase-ssd", mount("hbase/stable/", "hbase-ssd")),
				),
				warmed("hbase-mem", "fluid-mem-copy-test"),
				kubectl("delete dataload hbase-dataload"),
				warmed("hbase-ssd", "fluid-ssd-copy-test"),
				kubectl("delete jobs,datasets,alluxioruntimes --all --timeout=180s"),
			},
		},
		{
			name: "tieredstore_config", promise: "levels, quotas by directory, levels in any order",
			differs: "with several levels, what Alluxio keeps free for its own tasks counts as cached, 1 GiB " +
				"a directory; the document warns of it",
			steps: []step{
				apply(dataset("dataset", mount("hbase/stable/", "hbase")), alluxio("dataset", 1,
					`tieredstore: {levels: [{path: "/srv/mnt/ssd0/cache,/srv/mnt/ssd1/cache", mediumtype: SSD, `+
						`quotaList: "3Gi,2Gi"}, {path: /dev/shm, mediumtype: MEM, quota: 2Gi}]}`)),
				apply(dataset("directories", mount("hbase/stable/", "hbase")), alluxio("directories", 1,
					`tieredstore: {levels: [{path: "/srv/mnt/ssd0/cache,/srv/mnt/ssd1/cache", mediumtype: SSD, `+
						`quota: 4Gi}]}`)),
				sees(
					"get configmap dataset-config -o yaml",
					`level0.dirs.mediumtype=MEM\n`,
					`level1.dirs.mediumtype=SSD,SSD\n`,
					`level1.dirs.quota=3221225472,2147483648\n`,
				),
				sees("get configmap directories-config -o yaml", `level0.dirs.quota=2147483648,2147483648\n`),
				bound("dataset"),
				shows("dataset", `\S+ \S+ 7\.00GiB`),
				apply(server("nginx", "dataset")),
				running("nginx"),
				has("nginx", "/data/hbase", web["apache/hbase/stable"]),
			},
		},
	}},
	{"knative", []document{
		{
			name: "knative", promise: "a claim in a Knative service, warm after a DataLoad",
			changed: "the Deployment, which the document has for clusters without Knative",
			differs: "no sidecar is needed: the pod has one container, " +
				"and the label `serverless.fluid.io/inject` does nothing",
			sentence: "of a Knative Service kubectl says, " +
				"where Knative is not installed: no matches for kind \"Service\" in version \"serving.knative.dev/v1\"",
			steps: []step{
				apply(
					dataset(
						"serverless-data",
						mount("hbase/stable/", "hbase", `path: "/"`),
						"accessModes: [ReadOnlyMany]",
					),
					alluxio("serverless-data", 2, memory("2Gi")),
				),
				bound("serverless-data"),
				sees("get alluxio", `(?m)^serverless-data +Ready +Ready +Ready `),
				sees("get pvc serverless-data", ` ROX `),
				refused(
					object("serving.knative.dev/v1", "Service", "model-serving", "template: {}"),
					`no matches for kind "Service"`,
				),
				apply(serving),
				sees("logs deployment/model-serving", `(?m)^real\s`),
				sees("get pods -l app=model-serving -o jsonpath={.items[*].spec.containers[*].name}", `^main$`),
				kubectl("delete deployment model-serving"),
				gone("pods -l app=model-serving"),
				apply(load("serverless-dataload", "serverless-data")),
				sees("get dataload", `(?m)^serverless-dataload +serverless-data +Complete +\S+ +\d+\S*s?`),
				sees("get dataset", `(?m)^serverless-data +(\S+MiB) +\S+MiB +4\.00GiB +100\.0% +Bound `),
				warm(apply(serving), sees("logs deployment/model-serving", `(?m)^real\s`)),
			},
		},
	}},
	{"hadoop", []document{
		{
			name: "accelerate_data_accessing_by_hdfs", promise: "the data through `alluxio://`, " +
				"by the address in `HCFS URL`",
			changed: "Alluxio's own shell for a program of Hadoop's",
			differs: "where NetworkPolicies are enforced, such a client needs one that lets it in",
			steps: []step{
				apply(dataset("hadoop", mount("hadoop/current/", "hadoop")), alluxio("hadoop", 2, memory("2Gi"))),
				bound("hadoop"),
				sees("get alluxioruntime hadoop", `(?m)^hadoop +Ready +Ready +Ready `),
				sees("get dataset -o wide", `(?m)^hadoop .* alluxio://hadoop-master-0\.{ns}\S*:19998 `),
				apply(hadoopJob),
				done("fluid-hdfs-demo"),
				logged("job/fluid-hdfs-demo", "/tmp/hadoop", web["apache/hadoop/current"]),
				sees("get dataset hadoop", ` 100\.0% `),
				kubectl("delete job fluid-hdfs-demo"),
				warm(apply(hadoopJob), done("fluid-hdfs-demo")),
			},
		},
	}},
	{"training", []document{
		{
			name: "machinelearning", promise: "training on a claim, with a bucket's keys in `options`",
			changed: "S3 for OSS, of which there is no server to run; two workers for four; a copy for the training",
			steps: []step{
				afterwards("label node {node1} {node2} aliyun.accelerator/nvidia_name-"),
				kubectl("label node {node1} {node2} aliyun.accelerator/nvidia_name=Tesla-V100-SXM2-16GB"),
				apply(dataset("imagenet", `{mountPoint: "s3://training/set/", name: imagenet, options: {`+s3Options+
					`, s3a.accessKeyId: "{key}", s3a.secretKey: "{secret}"}}`,
					nodesWith("aliyun.accelerator/nvidia_name", "Tesla-V100-SXM2-16GB")),
					alluxio(
						"imagenet",
						2,
						"data: {replicas: 1}",
						`tieredstore: {levels: [{mediumtype: SSD, path: /var/lib/docker/alluxio, quota: 50Gi, `+
							`high: "0.99", low: "0.8"}]}`,
					)),
				bound("imagenet"),
				condition("dataset/imagenet", "Ready", "True", "DatasetReady"),
				allReady("imagenet-master-0", "imagenet-worker-0", "imagenet-worker-1"),
				shows("imagenet", `\S+MiB 0\.00B 100\.00GiB`),
				apply(copying("horovod", "imagenet", "imagenet")),
				done("horovod"),
				logged("job/horovod", "imagenet", buckets["training/set"]),
			},
		},
	}},
}

// tier is a level of one directory with no watermarks.
func tier(medium, path string) string {
	return "tieredstore: {levels: [{mediumtype: " + medium + ", path: " + path + ", quota: 2Gi}]}"
}

// warmed loads a Dataset by a DataLoad, and has a Job copy it with nothing from the source.
func warmed(dataset, copies string) step {
	return func(t *testing.T, p *place) {
		for _, do := range []step{
			bound(dataset),
			applying(load("hbase-dataload", dataset)),
			sees("get dataset", `(?m)^`+dataset+` +\S+MiB +\S+MiB +2\.00GiB +100\.0% +Bound `),
			warm(
				applying(copying(copies+", labels: {fluid.io/dataset."+dataset+".sched: required}", dataset, dataset)),
				done(copies),
			),
			logged("job/"+copies, dataset, web["apache/hbase/stable"]),
		} {
			do(t, p)
		}
	}
}

// serving reads all of its model, and says how long that took.
var serving = object("apps/v1", "Deployment", "model-serving", `selector: {matchLabels: {app: model-serving}}, `+
	`template: {metadata: {labels: {app: model-serving, serverless.fluid.io/inject: "true"}}, spec: {`+
	"terminationGracePeriodSeconds: 1, "+
	uses("busybox:stable", "serverless-data", "/data", shell("time cp -r /data /copy; sleep 1000"))+`}}`)

var hadoopJob = object("batch/v1", "Job", "fluid-hdfs-demo", `backoffLimit: 0, `+
	`template: {spec: {restartPolicy: Never, containers: [{name: main, image: "`+alluxioImage()+`", `+
	shell("alluxio fs ls /hadoop && alluxio fs copyToLocal /hadoop /tmp/hadoop && find /tmp/hadoop -type f | xargs "+
		"sha256sum")+
	`, env: [{name: ALLUXIO_JAVA_OPTS, `+
	`value: "-Dalluxio.master.hostname=hadoop-master-0.{ns} -Dalluxio.master.rpc.port=19998"}]}]}}`)

// alluxioImage is the chart's.
func alluxioImage() string {
	_, _, image, err := deploy.Images()
	if err != nil {
		return err.Error() // No image has such a name.
	}
	return image
}
