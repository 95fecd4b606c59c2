package fluid

// nginxAs are the fields of a workload whose pods are alike, with a label.
func nginxAs(app, claim string, more ...string) string {
	return "selector: {matchLabels: {app: " + app + "}}, template: {metadata: {labels: {app: " + app + "}}, spec: " +
		"{terminationGracePeriodSeconds: 1, " + uses("nginx:stable", claim, "/data") + after(more) + "}}"
}

// bothCopied are the Jobs of two Datasets on one node.
var bothCopied = copying("fluid-copy-test-hbase", "hbase", "hbase", `nodeName: "{node1}"`) + "---\n" +
	copying("fluid-copy-test-spark", "spark", "spark", `nodeName: "{node1}"`)

// placed are documents about where caches and pods are.
var placed = []scene{
	{"locality", []document{{
		name: "data_co_locality", promise: "workers only where the label says, and a count of those that have a place",
		steps: []step{
			afterwards("label node {node1} {node2} hbase-cache-"),
			kubectl("label node {node1} hbase-cache=true"),
			apply(dataset("hbase", mount("hbase/stable/", "hbase"), nodesWith("hbase-cache", "true"))),
			apply(alluxio("hbase", 2, memory("2Gi"))),
			bound("hbase"),
			sees(
				"get pods -o wide",
				`(?m)^hbase-worker-\d +(\d)/\d +Running .* {node1} `,
				`(?m)^hbase-worker-\d +0/\d +Pending .* <none> `,
			),
			sees("get alluxioruntime hbase -o wide", `(?m)^hbase +1 +1 +Ready +1 +2 +PartialReady `),
			condition(
				"alluxioruntime/hbase",
				"WorkersReady",
				"False",
				"Unschedulable",
				"1 of 2 workers are ready",
				"hbase-worker-",
			),
			kubectl("label node {node2} hbase-cache=true"),
			allReady("hbase-master-0", "hbase-worker-0", "hbase-worker-1"),
			parts("hbase", 1, 2, 0),
		},
	}}},
	{"toleration", []document{{
		name: "data_toleration", promise: "workers on tainted nodes, and pods that tolerate the taint",
		changed: "`apps/v1`, for Kubernetes has no `apps/v1beta1` any more; both nodes are tainted",
		steps: []step{
			afterwards("taint node {node1} {node2} hbase=true:NoSchedule-"),
			kubectl("taint node {node1} {node2} hbase=true:NoSchedule"),
			apply(dataset("hbase", mount("hbase/stable/", "hbase"), `tolerations: [{key: hbase, operator: Equal, `+
				`value: "true"}]`)),
			apply(alluxio("hbase", 1, memory("4Gi"))),
			bound("hbase"),
			allReady("hbase-master-0", "hbase-worker-0"),
			parts("hbase", 1, 1, 0),
			apply(object("apps/v1", "StatefulSet", "nginx, labels: {app: nginx}", "replicas: 1, serviceName: nginx, "+
				"podManagementPolicy: Parallel, "+
				nginxAs("nginx", "hbase", `tolerations: [{key: hbase, operator: Equal, value: "true"}]`))),
			running("nginx-0"),
			has("nginx-0", "/data/hbase", web["apache/hbase/stable"]),
		},
	}}},
	{"fuse", []document{{
		name: "fuse_affinity", promise: "pods of the claim only where the runtime's `fuse.nodeSelector` says",
		differs: "there is no FUSE pod: the claim's volume has the restriction",
		steps: []step{
			afterwards("label node {node1} {node2} select-node-"),
			kubectl("label node {node1} select-node=true"),
			apply(dataset("hbase", mount("hbase/stable/", "hbase"))),
			apply(alluxio("hbase", 1, memory("2Gi"), `fuse: {nodeSelector: {select-node: "true"}}`)),
			bound("hbase"),
			parts("hbase", 1, 1, 0),
			apply(object("apps/v1", "Deployment", "nginx", "replicas: 2, "+nginxAs("nginx-test", "hbase",
				`affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: `+
					`{matchExpressions: [{key: app, operator: In, values: [nginx-test]}]}, `+
					`topologyKey: kubernetes.io/hostname}]}}`))),
			sees("get pods -l app=nginx-test -o wide", `(?m) 1/1 +Running .* {node1} `, `(?m) 0/1 +Pending .* <none> `),
			parts("hbase", 1, 1, 1),
			kubectl("label node {node2} select-node=true"),
			sees(
				"get pods -l app=nginx-test -o wide",
				`(?m) 1/1 +Running .* {node1} `,
				`(?m) 1/1 +Running .* {node2} `,
			),
			parts("hbase", 1, 1, 2),
		},
	}}},
	{"together", []document{{
		name: "multi_dataset_same_node_accessing", promise: "two Datasets on a node, read at once, each cached",
		steps: []step{
			afterwards("label node {node1} fluid-"),
			kubectl("label node {node1} fluid=multi-dataset"),
			apply(
				dataset(
					"hbase",
					mount("hbase/stable/", "hbase"),
					nodesWith("fluid", "multi-dataset"),
					"placement: Shared",
				),
				dataset("spark", mount("spark/", "spark"), nodesWith("fluid", "multi-dataset"), "placement: Shared"),
			),
			sees("get dataset", `(?m)^hbase +NotBound `, `(?m)^spark +NotBound `),
			apply(alluxio("hbase", 1, memory("2Gi")), alluxio("spark", 1, memory("4Gi"))),
			bound("hbase"), bound("spark"),
			sees(
				"get pods -o wide",
				`(?m)^hbase-worker-0 +(\d)/\d +Running .* {node1} `,
				`(?m)^spark-worker-0 +(\d)/\d +Running .* {node1} `,
			),
			sees(
				"get dataset",
				`(?m)^hbase +\S+ +0\.00B +2\.00GiB +0\.0% +Bound `,
				`(?m)^spark +8\.00MiB +0\.00B +4\.00GiB +0\.0% +Bound `,
			),
			apply(
				server("nginx-hbase", "hbase", `nodeName: "{node1}"`),
				server("nginx-spark", "spark", `nodeName: "{node1}"`),
			),
			running("nginx-hbase"), running("nginx-spark"),
			sees("exec nginx-spark -- ls /data/spark", `^spark-2\.4\.7\nspark-3\.0\.1\n$`),
			sees(
				"exec nginx-spark -- du -h /data/spark",
				`(?m)^4\.0M\s+/data/spark/spark-2\.4\.7$`,
				`(?m)^8\.0M\s+/data/spark$`,
			),
			apply(bothCopied), done("fluid-copy-test-hbase"), done("fluid-copy-test-spark"),
			logged("job/fluid-copy-test-hbase", "hbase", web["apache/hbase/stable"]),
			logged("job/fluid-copy-test-spark", "spark", web["apache/spark"]),
			sees(
				"get dataset",
				`(?m)^hbase .* 100\.0% +Bound `,
				`(?m)^spark +8\.00MiB +8\.00MiB +4\.00GiB +100\.0% +Bound `,
			),
			kubectl("delete jobs --all"),
			warm(apply(bothCopied), done("fluid-copy-test-hbase"), done("fluid-copy-test-spark")),
		},
	}}},
}
