package gateway

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Keys are a pair of S3 keys.
type Keys struct {
	// AccessKeyID names the pair and is no secret.
	AccessKeyID string
	// SecretAccessKey signs requests.
	SecretAccessKey string
}

// LogValue keeps the secret out of logs.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.AccessKeyID) }

// String keeps the secret out of errors.
func (k Keys) String() string { return k.AccessKeyID }

// GoString keeps the secret out of %#v.
func (k Keys) GoString() string { return k.AccessKeyID }

// NewKeys makes a random pair: 100 and 240 bits.
func NewKeys() Keys {
	var secret [30]byte
	_, _ = rand.Read(secret[:]) // It never fails.
	return Keys{
		AccessKeyID:     "MILLRACE" + rand.Text()[:20],
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret[:]),
	}
}

// The names of the keys in a file. They are those of the options of S3 sources, so that the file is one
// of options also, and `millrace mount --options-file FILE s3://...` reads through a gateway.
const (
	accessKeyName = "access_key_id"
	secretKeyName = "secret_access_key"
)

// maxKeysFile bounds a keys file, in bytes.
const maxKeysFile = 64 << 10

// LoadKeys reads the file of keys, or makes it, with new keys and readable by its owner only, where it does
// not exist. A file that others than its owner and group may read is refused: Kubernetes gives a Secret's files to the
// pod's group. Errors name the file and never repeat what is in it.
func LoadKeys(name string) (Keys, error) {
	keys, err := readKeys(name)
	if errors.Is(err, fs.ErrNotExist) {
		keys, err = createKeys(name)
		if errors.Is(err, fs.ErrExist) {
			// Another gateway was faster.
			keys, err = readKeys(name)
		}
	}
	if err != nil {
		return Keys{}, fmt.Errorf("keys file %q: %w", name, bare(err))
	}
	return keys, nil
}

// createKeys writes new keys into a file that appears whole or not at all.
func createKeys(name string) (keys Keys, err error) {
	// It is made 0600.
	f, err := os.CreateTemp(filepath.Dir(name), ".millrace-keys-*")
	if err != nil {
		return Keys{}, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	keys = NewKeys()
	_, err = fmt.Fprintf(f, "# The keys of a millrace gateway.\n%s = %s\n%s = %s\n", accessKeyName, keys.AccessKeyID,
		secretKeyName, keys.SecretAccessKey)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return Keys{}, err
	}
	// A link, unlike a rename, never replaces keys that are in use.
	return keys, os.Link(f.Name(), name)
}

func readKeys(name string) (Keys, error) {
	f, err := os.Open(name)
	if err != nil {
		return Keys{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return Keys{}, err
	case st.IsDir():
		return Keys{}, errors.New("it is a directory")
	case st.Mode().IsRegular() && st.Mode().Perm()&0o037 != 0:
		return Keys{}, fmt.Errorf("others may read or change it (mode %04o); chmod 600 it", st.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return Keys{}, err
	}
	if len(text) > maxKeysFile {
		return Keys{}, fmt.Errorf("it is larger than %d bytes", maxKeysFile)
	}
	return parseKeys(text)
}

var (
	accessKeyPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,128}$`)
	secretKeyPattern = regexp.MustCompile(`^[\x21-\x7e]{16,256}$`)
)

// parseKeys reads lines name = value; those that begin with # are comments.
func parseKeys(text []byte) (Keys, error) {
	var keys Keys
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		into := map[string]*string{
			accessKeyName: &keys.AccessKeyID,
			secretKeyName: &keys.SecretAccessKey,
		}[strings.TrimSpace(name)]
		if into == nil {
			return Keys{}, fmt.Errorf("line %d gives neither %s nor %s", number, accessKeyName, secretKeyName)
		}
		if *into != "" {
			return Keys{}, fmt.Errorf("line %d gives its key a second time", number)
		}
		*into = strings.TrimSpace(value)
	}
	switch {
	case lines.Err() != nil:
		return Keys{}, lines.Err()
	case !accessKeyPattern.MatchString(keys.AccessKeyID):
		return Keys{}, fmt.Errorf("%s is missing or not 3 to 128 of A-Z, a-z, 0-9, _, . and -", accessKeyName)
	case !secretKeyPattern.MatchString(keys.SecretAccessKey):
		return Keys{}, fmt.Errorf("%s is missing or not 16 to 256 printable characters without spaces", secretKeyName)
	}
	return keys, nil
}

// bare drops the operation and the path from an error of os: the sentence around it names the file.
func bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
