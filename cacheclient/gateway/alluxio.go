package gateway

// SourceOption is the mount option by which a client of Alluxio learns what is behind a mount: the source as it was
// given to the gateway. Alluxio keeps options that it does not know.
const SourceOption = "millrace.source"

// AlluxioURI is what Alluxio is to mount.
func AlluxioURI(bucket string) string { return "s3://" + bucket + "/" }

// AlluxioOptions are the options of a read-only mount in Alluxio 2.9 of a gateway's bucket; endpoint is the URL of its
// S3 listener and source what it shows. The result has the secret.
func AlluxioOptions(endpoint, source string, keys Keys) map[string]string {
	return map[string]string{
		"s3a.accessKeyId":                        keys.AccessKeyID,
		"s3a.secretKey":                          keys.SecretAccessKey,
		"alluxio.underfs.s3.endpoint":            endpoint,
		"alluxio.underfs.s3.endpoint.region":     "us-east-1",
		"alluxio.underfs.s3.disable.dns.buckets": "true",
		"alluxio.underfs.s3.inherit.acl":         "false",
		// Alluxio would write marks of directories where a mount is not read-only.
		"alluxio.underfs.object.store.breadcrumbs.enabled": "false",
		SourceOption: source,
	}
}
