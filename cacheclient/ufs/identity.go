package ufs

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"

	"github.com/rclone/rclone/fs"
	"github.com/rclone/rclone/fs/config/configmap"

	"millrace.io/millrace/cacheclient/network"
)

// tuning are the options that say how much or how fast, or how to write, and never what is read or from whom. An option
// that is not among them counts: a cache too many costs a fetch, a cache too few serves one source's bytes as
// another's.
var tuning = map[string]bool{
	"acl": true, "bucket_acl": true, "bucket_object_lock_enabled": true, "bypass_governance_retention": true,
	"chunk_size":  true,
	"copy_cutoff": true, "directory_markers": true, "disable_checksum": true, "disable_http2": true,
	"leave_parts_on_error": true,
	"list_chunk":           true, "list_url_encode": true, "list_version": true, "location_constraint": true,
	"max_upload_parts": true,
	"no_check_bucket":  true, "no_head_object": true, "no_system_metadata": true, "object_lock_legal_hold_status": true,
	"object_lock_mode": true, "object_lock_retain_until_date": true, "object_lock_set_after_upload": true,
	"object_lock_supported": true, "role_session_duration": true, "role_session_name": true, "sdk_log_mode": true,
	"server_side_encryption": true, "sse_kms_key_id": true, "storage_class": true, "upload_concurrency": true,
	"upload_cutoff":      true,
	"use_already_exists": true, "use_multipart_uploads": true, "use_unsigned_payload": true,
	// Of sftp.
	"concurrency": true, "connections": true, "idle_timeout": true, "disable_concurrent_reads": true,
	"disable_concurrent_writes": true,
}

// identityOf is what decides what is read: the place, each option that is not at its default and no pure tuning, and
// what else the kind of source knows. Secrets are hashed. The parts are joined so that no two lists meet.
func identityOf(src source, table fs.Options, values configmap.Simple, more ...string) string {
	parts := append([]string{string(src.scheme), src.place()}, more...)
	for i := range table {
		option := &table[i]
		value := values[option.Name]
		standard := &fs.Option{Name: option.Name, Default: option.Default}
		if tuning[option.Name] || value == standard.String() {
			continue
		}
		switch {
		case isProxy(option.Name):
			// Another password is no other source.
			value = network.WithoutUser(value)
		case secretValue(option, value):
			value = "sha256:" + hashed(value)
		}
		parts = append(parts, option.Name+"="+value)
	}
	slices.Sort(parts[2+len(more):])
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(part, `\`, `\\`), "\n", `\n`)
	}
	return strings.Join(parts, "\n")
}

// place is where the source is, the same however it was written.
func (s source) place() string {
	switch s.scheme {
	case schemeHTTP:
		return s.base.String()
	case schemeS3:
		return joinBucket(s)
	case schemeRemote:
		return s.backend.Name + ":" + s.dir
	}
	return s.dir
}

// awsEnvironment are the variables that decide, with env_auth, by which keys and which server is asked.
var awsEnvironment = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN",
	"AWS_WEB_IDENTITY_TOKEN_FILE",
	"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_CREDENTIALS_FULL_URI",
}

// environment is the hash of what is set of some variables, "" where none is.
func environment(names []string) string {
	var set []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			set = append(set, name+"="+value)
		}
	}
	if set == nil {
		return ""
	}
	return hashed(strings.Join(set, "\x00"))
}

func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
