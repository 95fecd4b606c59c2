package fluid

import (
	"fmt"
	"strings"
	"testing"

	"millrace.io/millrace/sanity/testbed"
)

// s3Options are what a server of S3 needs that is not Amazon's.
const s3Options = `alluxio.underfs.s3.endpoint: "{s3}", alluxio.underfs.s3.endpoint.region: us-east-1, ` +
	`alluxio.underfs.s3.disable.dns.buckets: "true", alluxio.underfs.s3.inherit.acl: "false"`

// secretKeys are options from the Secret mysecret, by the same names as its keys.
func secretKeys(names ...string) string {
	var options []string
	for _, n := range names {
		options = append(options, fmt.Sprintf("{name: %[1]s, valueFrom: {secretKeyRef: {name: mysecret, "+
			"key: %[1]s}}}", n))
	}
	return "[" + strings.Join(options, ", ") + "]"
}

// secret is mysecret.
func secret(id, key string) string {
	return fmt.Sprintf(
		"apiVersion: v1\nkind: Secret\nmetadata: {name: mysecret}\nstringData: {%s: \"{key}\", %s: \"{secret}\"}\n",
		id,
		key,
	)
}

var (
	awsKeys = secretKeys("aws.accessKeyId", "aws.secretKey")
	s3aKeys = secretKeys("s3a.accessKeyId", "s3a.secretKey")

	sharedOptions = "sharedOptions: {" + s3Options + "}"
	sharedKeys    = "sharedEncryptOptions: " + s3aKeys

	withGPU = nodesWith("aliyun.accelerator/nvidia_name", "Tesla-V100-SXM2-16GB")
)

// gcsKey is the file with the keys of Google's.
const gcsKey = "/var/secrets/gcloud-application-credentials.json"

// misplaced is what two documents have: encryptOptions among the options, where only texts may be.
var misplaced = dataset("my-s3", `{mountPoint: "s3://many/data/", name: s3, `+
	`options: {alluxio.underfs.s3.region: us-east-1, encryptOptions: `+awsKeys+`}}`)

// sources are documents about where data comes from.
var sources = []scene{
	{"s3", []document{
		{
			name: "accelerate_s3_minio", promise: "an S3 server with keys from a Secret",
			differs: "the files are below the mount's name, `/data/spark`, as in Fluid; the document lists `/data`",
			steps: []step{
				apply(dataset("demo", `{mountPoint: "s3://spark/fluid-data", name: spark, `+
					`options: {alluxio.underfs.s3.endpoint: "{s3}", alluxio.underfs.s3.disable.dns.buckets: "true", `+
					`alluxio.underfs.s3.inherit.acl: "false"}, encryptOptions: `+awsKeys+`}`)),
				apply(secret("aws.accessKeyId", "aws.secretKey")),
				apply(alluxio("demo", 1, memory("20M"))),
				apply(server("demo-app", "demo")),
				running("demo-app"),
				has("demo-app", "/data/spark", buckets["spark/fluid-data"]),
				kubectl("delete pod demo-app --grace-period=1"),
				cleared,
			},
		},
		{
			name: "use_encryptoptions", promise: "keys in a Secret, and nowhere else",
			changed: "S3 for OSS, of which there is no server to run",
			differs: "the same key in `options` and `encryptOptions` is refused, as another document of Fluid's has it",
			steps: []step{
				kubectl("delete secret mysecret --ignore-not-found"),
				apply(dataset("mydata", `{mountPoint: "s3://spark/fluid-data/", name: mydata, options: {`+s3Options+
					`}, encryptOptions: `+s3aKeys+`}`),
					alluxio("mydata", 1, memory("2Gi"))),
				condition(
					"dataset/mydata",
					"Ready",
					"False",
					"InvalidSpec",
					`names the Secret "mysecret", which does not exist`,
				),
				apply(secret("s3a.accessKeyId", "s3a.secretKey")),
				bound("mydata"),
				apply(copying("reads", "mydata", "mydata")),
				done("reads"),
				logged("job/reads", "mydata", buckets["spark/fluid-data"]),
				keptSecret,
			},
		},
		{
			name: "dataset_sharedOptions", promise: "options and keys for all mounts; a key in both kinds is refused",
			changed: "S3 for OSS, of which there is no server to run",
			differs: "the refusal is a condition, and not the API server's",
			sentence: "`Ready`: Dataset.spec.sharedEncryptOptions: has s3a.secretKey, " +
				"which Dataset.spec.mounts[0].options has also; accepted is one of them",
			steps: []step{
				apply(secret("s3a.accessKeyId", "s3a.secretKey")),
				apply(dataset("mydata", `{mountPoint: "s3://spark/fluid-data/", name: mydata}, `+
					`{mountPoint: "s3://training/set/", name: more}`, sharedOptions, sharedKeys),
					alluxio("mydata", 1, memory("2Gi"))),
				bound("mydata"),
				within(start, "get dataset mydata -o jsonpath={.status.mounts[*].name}", `^mydata more$`),
				apply(server("reads", "mydata")),
				running("reads"),
				has("reads", "/data/mydata", buckets["spark/fluid-data"]),
				within(start, "exec reads -- ls /data/more", `train-00000.tfrecord`),
				has("reads", "/data/more", buckets["training/set"]),
				apply(dataset("twice", `{mountPoint: "s3://spark/fluid-data/", name: mydata, `+
					`options: {s3a.secretKey: x}}`, sharedOptions, sharedKeys),
					alluxio("twice", 1, memory("2Gi"))),
				condition(
					"dataset/twice",
					"Ready",
					"False",
					"InvalidSpec",
					"Dataset.spec.sharedEncryptOptions",
					"has s3a.secretKey",
					"accepted is one of them",
				),
				kubectl("delete pod reads --grace-period=1"),
				cleared,
			},
		},
		{
			name: "s3_configuration", promise: "the options of S3",
			changed:  "`encryptOptions` beside `options`; the document has it inside, where it is refused",
			sentence: "strict decoding error: unknown field \"spec.mounts[0].options.encryptOptions[0].name\"",
			steps: []step{
				refused(misplaced, `unknown field "spec.mounts[0].options.encryptOptions[0].name"`),
				apply(dataset("my-s3", `{mountPoint: "s3://spark/fluid-data/", name: s3, `+
					`options: {alluxio.underfs.s3.region: us-east-1, alluxio.underfs.s3.endpoint: "{s3address}"}, `+
					`encryptOptions: `+awsKeys+`}`)),
				apply(secret("aws.accessKeyId", "aws.secretKey")),
				apply(alluxio("my-s3", 1, memory("1Gi"))),
				bound("my-s3"),
				sees("exec my-s3-master-0 -- alluxio fs ls /s3", `from-hdfs-to-s3\.pdf`),
				kubectl("delete dataset,alluxioruntime my-s3 --timeout=180s"),
			},
		},
		{
			name: "alluxio_s3_high_concurrency", promise: "64 readers at once do not hang, " +
				"and their pod can be deleted",
			changed: "requests of 8 processors and 32 GiB, which the nodes do not have; `dd` for `fio`",
			differs: "what tunes the FUSE process has no effect and is named; it is not needed",
			sentence: "`Unsupported`: these fields are set and have no effect: AlluxioRuntime.spec.fuse.args, " +
				"AlluxioRuntime.spec.fuse.jvmOptions",
			steps: []step{
				apply(secret("aws.accessKeyId", "aws.secretKey")),
				apply(dataset("my-s3", `{mountPoint: "s3://many/data/", name: s3, options: {`+s3Options+`}, `+
					`encryptOptions: `+awsKeys+`}`)),
				apply(alluxio("my-s3", 1, `fuse: {jvmOptions: ["-Xmx16G", "-Xms16G", "-XX:+UseG1GC"], args: [fuse, `+
					`"--fuse-opts=kernel_cache,rw,allow_other,max_background=256"]}`,
					`properties: {alluxio.fuse.jnifuse.enabled: "false", alluxio.underfs.s3.threads.max: "2048", `+
						`alluxio.user.block.worker.client.pool.max: "8192", `+
						`alluxio.user.block.size.bytes.default: 64MB, `+
						`alluxio.user.streaming.reader.chunk.size.bytes: 64MB, `+
						`alluxio.worker.network.reader.buffer.size: 64MB}`,
					`tieredstore: {levels: [{mediumtype: SSD, path: /srv/ssd/mount, quota: 100G, high: "0.95", `+
						`low: "0.6"}]}`)),
				condition(
					"alluxioruntime/my-s3",
					"Unsupported",
					"True",
					"AlluxioRuntime.spec.fuse.args",
					"AlluxioRuntime.spec.fuse.jvmOptions",
				),
				bound("my-s3"),
				apply(manyReaders("fio-reader", "wait; echo ended; sleep 1000")),
				sees("logs fio-reader", `(?m)^ended$`),
				logged("fio-reader", "", buckets["many/data"]),
				apply(manyReaders("fio-again", "while :; do cat /data/* >/dev/null; done")),
				running("fio-again"),
				kubectl("delete pod fio-again --grace-period=1 --timeout=60s"),
				sees(
					`get pods -l `+ours+`=millrace -o 'jsonpath={.items[*].status.containerStatuses[*].restartCount}'`,
					`^[0 ]+$`,
				),
			},
		},
	}},
	{"directories", []document{
		{
			name: "nonroot_access", promise: "a pod that is not root reads what belongs to its user",
			differs: "no mode has a bit for writing, for nothing is written; " +
				"the options of the FUSE process have no effect, and are named",
			sentence: "`Unsupported`: these fields are set and have no effect: AlluxioRuntime.spec.fuse.args",
			steps: []step{
				onNode(
					"{node2}",
					"/srv/mnt/nonroot",
					"mkdir -p /d/user1_data && echo \"This is fluid-user-1's data\" >/d/user1_data/data1 && chown "+
						"-R 1201:1201 /d/user1_data && chmod -R 0750 /d/user1_data",
				),
				afterwards("label node {node2} nonroot-"),
				kubectl("label node {node2} nonroot=true"),
				apply(
					dataset(
						"nonroot",
						`{mountPoint: "local:///srv/mnt/nonroot/", name: nonroot}`,
						nodesWith("nonroot", "true"),
					),
					alluxio("nonroot", 1, level("SSD", "/var/lib/docker/alluxio", "2Gi"), "runAs: {uid: 1201, "+
						"gid: 1201, user: fluid-user-1, group: fluid-user-1}",
						`fuse: {args: [fuse, `+
							`"--fuse-opts=kernel_cache,ro,max_read=131072,attr_timeout=7200,max_readahead=0"]}`)),
				bound("nonroot"),
				condition("alluxioruntime/nonroot", "Unsupported", "True", "AlluxioRuntime.spec.fuse.args"),
				apply(object("v1", "Pod", "nginx", "securityContext: {runAsUser: 1201, runAsGroup: 1201}, "+
					uses("busybox:stable", "nonroot", "/data", shell("sleep 1000")))),
				sees("exec nginx -- id", `^uid=1201 gid=1201`),
				sees("exec nginx -- ls -ln /data/nonroot", `dr-xr-x--- +\d+ 1201 +1201 .* user1_data`),
				sees("exec nginx -- ls -ln /data/nonroot/user1_data", `-r-xr-x--- +\d+ 1201 +1201 +28 .* data1`),
				sees("exec nginx -- cat /data/nonroot/user1_data/data1", `^This is fluid-user-1's data\n$`),
			},
		},
		{
			name: "hostpath", promise: "`local://` as the source",
			changed: "one worker for four, 5 GiB for 50; a copy for the training",
			steps: []step{
				onNode(
					"{node1}",
					"/srv/mnt/nfs-imagenet",
					"echo one >/d/one && mkdir -p /d/imagenet && echo two >/d/imagenet/two",
				),
				afterwards("label node {node1} aliyun.accelerator/nvidia_name-"),
				kubectl("label node {node1} aliyun.accelerator/nvidia_name=Tesla-V100-SXM2-16GB"),
				apply(dataset("imagenet", `{mountPoint: "local:///srv/mnt/nfs-imagenet", name: imagenet}`, withGPU),
					alluxio(
						"imagenet",
						1,
						"data: {replicas: 1}",
						`tieredstore: {levels: [{mediumtype: MEM, path: /srv/alluxio/ram, quota: 5Gi, `+
							`high: "0.99", low: "0.8"}]}`,
					)),
				bound("imagenet"),
				sees(
					"get pv,pvc",
					`(?m)^persistentvolume/{ns}-imagenet +100Gi +RWX +Retain +Bound +{ns}/imagenet `,
					`(?m)^persistentvolumeclaim/imagenet +Bound +{ns}-imagenet +100Gi +RWX `,
				),
				apply(job("horovod", "imagenet", "cat /data/imagenet/one /data/imagenet/imagenet/two")),
				done("horovod"),
				sees("logs job/horovod", `^one\ntwo\n$`),
				kubectl("delete job horovod"),
				kubectl("delete dataset,alluxioruntime imagenet --timeout=180s"),
			},
		},
		{
			name: "accelerate_pvc", promise: "`pvc://` as the source",
			changed: "a directory of a node for NFS; one worker for four; a copy for the training",
			steps: []step{
				onNode("{node1}", "/srv/nfs-imagenet", "mkdir -p /d/imagenet && echo three >/d/imagenet/three"),
				afterwards("label node {node1} aliyun.accelerator/nvidia_name-"),
				afterwards("delete pv nfs-imagenet --ignore-not-found --wait=false"),
				kubectl("label node {node1} aliyun.accelerator/nvidia_name=Tesla-V100-SXM2-16GB"),
				apply(object("v1", "PersistentVolume", "nfs-imagenet", "capacity: {storage: 150Gi}, "+
					"volumeMode: Filesystem, accessModes: [ReadOnlyMany], persistentVolumeReclaimPolicy: Retain, "+
					"storageClassName: nfs, hostPath: {path: /srv/nfs-imagenet}"),
					object(
						"v1",
						"PersistentVolumeClaim",
						"nfs-imagenet",
						"accessModes: [ReadOnlyMany], resources: {requests: {storage: 150Gi}}, storageClassName: nfs",
					)),
				sees("get pvc nfs-imagenet", `(?m)^nfs-imagenet +Bound +nfs-imagenet +150Gi +ROX +nfs `),
				apply(dataset("fluid-imagenet", `{mountPoint: "pvc://nfs-imagenet", name: nfs-imagenet}`, withGPU),
					alluxio(
						"fluid-imagenet",
						1,
						"data: {replicas: 1}",
						`tieredstore: {levels: [{mediumtype: SSD, path: /var/lib/docker/alluxio, quota: 150Gi, `+
							`high: "0.99", low: "0.8"}]}`,
					)),
				bound("fluid-imagenet"),
				sees("get pvc", `(?m)^fluid-imagenet +Bound +{ns}-fluid-imagenet +100Gi +RWX `),
				apply(job("horovod", "fluid-imagenet", "cat /data/nfs-imagenet/imagenet/three")),
				done("horovod"),
				sees("logs job/horovod", `^three\n$`),
				kubectl("delete job horovod"),
				kubectl("delete dataset,alluxioruntime fluid-imagenet --timeout=180s"),
				kubectl("delete pvc nfs-imagenet --timeout=60s"),
			},
		},
	}},
	{"elsewhere", []document{
		{
			name: "accelerate_different_storage", promise: "several kinds of storage in one Dataset, " +
				"each by a `subPath`",
			changed: "a web server and S3 for two directories of HDFS, which does not run here; " +
				"`encryptOptions` beside `options`, as above",
			sentence: "strict decoding error: unknown field \"spec.mounts[0].options.encryptOptions[0].name\"",
			steps: []step{
				refused(misplaced, `unknown field "spec.mounts[0].options.encryptOptions[0].name"`),
				apply(secret("aws.accessKeyId", "aws.secretKey")),
				apply(dataset("my-hdfs", mount("hbase/stable/", "hdfs-file1")+`, {mountPoint: `+
					`"s3://spark/fluid-data", name: hdfs-file2, options: {`+s3Options+`}, encryptOptions: `+
					awsKeys+`}`),
					alluxio("my-hdfs", 1, memory("1Gi"))),
				bound("my-hdfs"),
				apply(ofSubPath("first", "hdfs-file1"), ofSubPath("second", "hdfs-file2")),
				done("first"),
				done("second"),
				logged("job/first", "/data", web["apache/hbase/stable"]),
				logged("job/second", "/data", buckets["spark/fluid-data"]),
				kubectl("delete jobs,datasets,alluxioruntimes --all --timeout=180s"),
			},
		},
		{
			name: "hdfs_configuration", promise: "HDFS's own files, by `hadoopConfig`, where Alluxio finds them",
			unshown: "no HDFS runs here: what is tested ends where Alluxio asks for it",
			sentence: "`Ready`: NotMounted, with the mount and Alluxio's words, " +
				"where HDFS does not answer or the image has no module for it",
			steps: []step{
				apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: hadoop}\ndata: {hdfs-site.xml: " +
					"<configuration/>, core-site.xml: <configuration/>}\n"),
				apply(
					dataset("my-hdfs", `{mountPoint: "hdfs://{node1}:8020", name: hdfs}`),
					alluxio("my-hdfs", 1, memory("1Gi"), "hadoopConfig: hadoop"),
				),
				within(start, "exec my-hdfs-master-0 -- ls /hdfs-config", `core-site\.xml`, `hdfs-site\.xml`),
				condition("dataset/my-hdfs", "Ready", "False", "NotMounted", "hdfs"),
			},
		},
		{
			name: "gcs_configuration", promise: "`gs://` with a key file in masters and workers",
			unshown: "no server of Google's is reached here: what is tested ends where Alluxio asks for it",
			sentence: "`Ready`: NotMounted, with the mount and Alluxio's words, " +
				"where Google does not answer or the image has no module for it",
			steps: []step{
				kubectl("create secret generic gcscreds --from-literal=gcloud-application-credentials.json={}"),
				apply(alluxio("gcs-data", 1, memory("1Gi"), "volumes: [{name: secret-volume, "+
					"secret: {secretName: gcscreds}}]",
					"master: {volumeMounts: [{name: secret-volume, readOnly: true, mountPath: /var/secrets}]}",
					"worker: {volumeMounts: [{name: secret-volume, readOnly: true, mountPath: /var/secrets}]}")),
				apply(dataset("gcs-data", `{mountPoint: "gs://bucket/path", name: gcs, `+
					`options: {fs.gcs.credential.path: `+gcsKey+`}}`,
					"accessModes: [ReadOnlyMany]")),
				within(start, "exec gcs-data-master-0 -- cat "+gcsKey, `^\{\}$`),
				within(start, "exec gcs-data-worker-0 -- cat "+gcsKey, `^\{\}$`),
				condition("dataset/gcs-data", "Ready", "False", "NotMounted", "gs://bucket/path"),
			},
		},
	}},
}

// ofSubPath is a Job that reads one directory of a claim, mounted alone.
func ofSubPath(name, dir string) string {
	whole := job(name, "my-hdfs", "find /data -type f | xargs sha256sum")
	return strings.ReplaceAll(whole, "mountPath: /data", "mountPath: /data, subPath: "+dir)
}

// manyReaders is a pod with a reader for each file, past the page cache, which then goes on with a script.
func manyReaders(name, then string) string {
	script := fmt.Sprintf("cd /data; for i in $(seq 0 %d); "+
		"do dd if=file$i bs=256k iflag=direct 2>/dev/null | sha256sum | sed \"s/-/file$i/\" & done; %s",
		readers-1, then)
	return strings.ReplaceAll(
		object("v1", "Pod", name, "restartPolicy: Never, "+uses("busybox:stable", "my-s3", "/data", shell(script))),
		"mountPath: /data",
		"mountPath: /data, subPath: s3, readOnly: true",
	)
}

// keptSecret looks for a secret key where it is not to be.
func keptSecret(t *testing.T, p *place) {
	text := p.Kubectl(t, p.line("get datasets,alluxioruntimes,configmaps,statefulsets,pods,events,pv -o yaml")...)
	if strings.Contains(text, testbed.S3Secret) {
		t.Error("an object that is no Secret has the key")
	}
}
