package fluid

import "fmt"

// web is what the web server has for each scene. The names are those of Apache's mirrors, the files are small.
var web = map[string]tree{
	"apache/hbase/stable": {
		"CHANGES.md": 521 << 10, "RELEASENOTES.md": 312 << 10, "api_compare_2.2.5RC0_to_2.2.4.html": 115 << 10,
		"hbase-2.2.5-bin.tar.gz": 8<<20 + 613, "hbase-2.2.5-client-bin.tar.gz": 4<<20 + 17,
		"hbase-2.2.5-src.tar.gz": 1 << 20,
	},
	"apache/zookeeper/stable": {
		"apache-zookeeper-3.8.4-bin.tar.gz": 4<<20 + 9, "apache-zookeeper-3.8.4.tar.gz": 1 << 20,
	},
	"apache/spark": {
		"spark-2.4.7/spark-2.4.7.tgz": 3 << 20, "spark-2.4.7/pyspark-2.4.7.tar.gz": 1 << 20,
		"spark-3.0.1/spark-3.0.1.tgz": 2 << 20, "spark-3.0.1/pyspark-3.0.1.tar.gz": 2 << 20,
	},
	"apache/hadoop/current": {"CHANGES.md": 521 << 10, "RELEASENOTES.md": 312 << 10, "hadoop-3.1.3.tar.gz": 4<<20 + 33},
	"apache/flink":          {"flink-1.20/flink-1.20-bin.tgz": 2<<20 + 5},
}

// buckets are those of the S3 server.
var buckets = map[string]tree{
	"spark/fluid-data": {"data-mesh-in-practice.pdf": 1<<20 + 7, "from-hdfs-to-s3.pdf": 300 << 10},
	"training/set":     {"train-00000.tfrecord": 2<<20 + 1, "train-00001.tfrecord": 2 << 20},
	"many/data":        many(),
}

// readers is how many read at once.
const readers = 64

// many has a file for each reader.
func many() tree {
	files := tree{}
	for i := range readers {
		files[fmt.Sprintf("file%d", i)] = 1<<20 + int64(i)
	}
	return files
}
