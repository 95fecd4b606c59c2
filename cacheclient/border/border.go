// Package border judges what sources, masters, workers and disks say before it becomes an entry, the size of an
// allocation or a key.
//
// Everything from outside is a claim. A claim that no file system can hold concerns its own file alone: it becomes an
// error of that path ([cacheclient.ErrTooLarge]), is left out of a listing and counted, or is told as not known. All
// functions are pure; the shells that call them are ufs.Open and the client of Alluxio.
package border

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"millrace.io/millrace/cacheclient"
)

const (
	// MostBytes is the largest size of a file that is believed: 1 PiB.
	MostBytes = 1 << 50
	// MostNameBytes is the longest name of an entry: the kernel's FUSE_NAME_MAX, and the longest key of S3.
	MostNameBytes = 1024
	// MostVersionBytes is the longest version (an ETag) that is kept as it is.
	MostVersionBytes = 1024
)

// Size checks the size that is claimed for a file, in bytes.
func Size(n int64) error {
	if n < 0 || n > MostBytes {
		return fmt.Errorf("a size of %d bytes is told, accepted are 0 to %d: %w", n, int64(MostBytes),
			cacheclient.ErrTooLarge)
	}
	return nil
}

// Name reports whether a directory can have an entry of this name, which may be any bytes otherwise.
func Name(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MostNameBytes &&
		!strings.ContainsAny(name, "/\x00")
}

// Version is what is kept of a version that a source tells: itself, or a hash where it is long.
func Version(v string) string {
	if len(v) <= MostVersionBytes {
		return v
	}
	sum := sha256.Sum256([]byte(v))
	return "sha256:" + hex.EncodeToString(sum[:])
}

const (
	// MostEntries is how many entries a directory may be told to have.
	MostEntries = 1 << 24
	// MostListed is how many bytes the names of a directory's entries may have together.
	MostListed = 1 << 30
)

// Listing checks how much of a directory has been told so far: a listing that never ends is none.
func Listing(entries, bytes int64) error {
	if entries > MostEntries || bytes > MostListed {
		return fmt.Errorf("a directory is told with more than %d entries or %d bytes of names: %w",
			MostEntries, MostListed, cacheclient.ErrTooLarge)
	}
	return nil
}
