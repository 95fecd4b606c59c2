package ufs

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// trust is which validators of a web server tell versions apart. D-150 says why.
type trust int32

const (
	// trustAll is the strong ETag, else size, time and whatever else is told.
	trustAll trust = iota
	// trustTime is size and time, for servers whose ETags differ for one content.
	trustTime
	// trustSize is the size alone.
	trustSize
	// trustContent is the content itself, which is read to know.
	trustContent
)

// validators are what an answer tells of a file's version, beside its size.
type validators struct {
	etag string
	// digest is what else names content: a checksum, a generation.
	digest  string
	modTime time.Time
}

// Keys of the lines of a version that is no strong ETag.
const (
	keyETag    = "etag="
	keyDigest  = "digest="
	keyTime    = "time="
	keyContent = "content="
	// keySamples is that of content of which only samples were read.
	keySamples = keyContent + "samples:"
)

// sizeOnly is the version of each file whose size alone counts.
const sizeOnly = "size"

// longestPart bounds a validator within a version of several.
const longestPart = border.MostVersionBytes / 4

// version is what the validators name: "" where the time is all there is, which Info has anyway.
func (v validators) version(t trust) string {
	switch {
	case t == trustSize:
		return sizeOnly
	case t != trustAll, v.etag == "" && v.digest == "":
		return ""
	case strongETag(v.etag):
		return v.etag
	}
	var lines []string
	if v.etag != "" {
		lines = append(lines, keyETag+short(v.etag))
	}
	if v.digest != "" {
		lines = append(lines, keyDigest+short(v.digest))
	}
	if !v.modTime.IsZero() {
		lines = append(lines, keyTime+strconv.FormatInt(v.modTime.Unix(), 10))
	}
	return strings.Join(lines, "\n")
}

// short is a validator, or its hash where it is long or of several lines.
func short(s string) string {
	if len(s) <= longestPart && !strings.Contains(s, "\n") {
		return s
	}
	return border.Version(s + strings.Repeat(" ", border.MostVersionBytes))
}

// recorded are the validators that a version was made of.
func recorded(info cacheclient.Info) validators {
	v := validators{modTime: info.ModTime}
	if strongETag(info.Version) {
		v.etag = info.Version
		return v
	}
	for line := range strings.SplitSeq(info.Version, "\n") {
		if etag, ok := strings.CutPrefix(line, keyETag); ok {
			v.etag = etag
		}
		if digest, ok := strings.CutPrefix(line, keyDigest); ok {
			v.digest = digest
		}
	}
	// Versions of other makes are ETags as they are.
	if v.etag == "" && v.digest == "" && info.Version != sizeOnly && !strings.HasPrefix(info.Version, keyContent) {
		v.etag = info.Version
	}
	return v
}

// differ tells in words how the validators differ, "" where what both have agrees. A strong ETag settles it, for its
// bytes are the same whatever the time.
func (v validators) differ(was validators, t trust) string {
	if t == trustAll {
		both := was.etag != "" && v.etag != ""
		if both && weak(short(was.etag)) != weak(short(v.etag)) {
			return "its ETag is " + v.etag + " and was " + was.etag
		}
		if both && strongETag(was.etag) && strongETag(v.etag) {
			return ""
		}
		if was.digest != "" && v.digest != "" && short(was.digest) != short(v.digest) {
			return "its checksum is " + v.digest + " and was " + was.digest
		}
	}
	if t > trustTime || was.modTime.IsZero() || v.modTime.IsZero() || v.modTime.Equal(was.modTime) {
		return ""
	}
	return "it was modified at " + v.modTime.UTC().String() + ", not at " + was.modTime.UTC().String()
}

// shows reports whether the validators tell that it is the version: at least one of its own is told and equal, and none
// differs. A weak ETag does not show the version of a strong one, whose bytes it may not have. D-221 says why.
func (v validators) shows(was validators, t trust) bool {
	if t > trustTime || v.differ(was, t) != "" {
		return false
	}
	if t == trustAll {
		tags := v.etag != "" && was.etag != ""
		if tags && strongETag(was.etag) && !strongETag(v.etag) {
			return false
		}
		if tags || v.digest != "" && was.digest != "" {
			return true
		}
	}
	return !was.modTime.IsZero() && v.modTime.Equal(was.modTime)
}

// nothing reports whether there is no validator that counts.
func (v validators) nothing(t trust) bool {
	return v.modTime.IsZero() && (t == trustTime || t == trustAll && v.etag == "" && v.digest == "")
}

// none reports whether nothing tells this content from another of its size. Servers of builds that set all times to the
// epoch tell no time, and an ETag that is made of such a time and the size is no other.
func (h head) none() bool {
	epoch := !h.modTime.IsZero() && (h.modTime.Unix() == 0 || h.modTime.Unix() == 1)
	switch {
	case h.digest != "":
		return false
	case h.etag != "":
		return epoch && h.size >= 0 && madeOfSize(h.etag, h.size)
	}
	return epoch || h.modTime.IsZero()
}

// digests are the headers that name content besides ETags: RFC 9530, RFC 3230, and those of stores. Content-MD5 is not
// among them, for in an answer to a range it is that of the range.
var digests = []string{
	"Repr-Digest", "Digest", "X-Checksum-Sha256", "X-Checksum-Sha1", "X-Goog-Generation", "X-Amz-Version-Id",
	"X-Ms-Blob-Content-Md5",
}

func readValidators(h http.Header) validators {
	v := validators{etag: border.Version(strings.TrimSpace(h.Get("Etag")))}
	if weak(v.etag) == `""` {
		// An ETag of nothing is the same for all.
		v.etag = ""
	}
	for _, name := range digests {
		if value := strings.TrimSpace(h.Get(name)); value != "" && value != "null" {
			v.digest = border.Version(name + ":" + value)
			break
		}
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		v.modTime = t
	}
	return v
}

// youngest is the age below which a time in whole seconds does not tell this content from the next: the second it was
// written in, and one for the clocks of a file server and its web server.
const youngest = 2 * time.Second

// proves reports whether an answer of these validators can only be of the version, so that its bytes need no
// confirmation: it has the version's strong ETag. One that may be made of attributes is as good as their clock.
func (h head) proves(want cacheclient.Info, t trust) bool {
	if t != trustAll || !strongETag(want.Version) || h.etag != want.Version {
		return false
	}
	return !h.young() || mayBeHash(h.etag)
}

// young reports whether the file was modified so lately, by the server's clock, that its time may stand for two
// contents.
func (h head) young() bool {
	return !h.modTime.IsZero() && !h.date.IsZero() && h.date.Sub(h.modTime) < youngest
}

// hashLike is what a hash of content looks like: 128 bits at the least, in hexadecimal or Base64. Attributes make
// shorter ETags, also where they are hashed, as lighttpd does. D-261 says more.
var hashLike = regexp.MustCompile(`[0-9A-Za-z+/_]{22}`)

// mayBeHash reports whether an ETag may be made of content.
func mayBeHash(etag string) bool { return hashLike.MatchString(etag) }

// madeOfSize reports whether the ETag has the size of the file in it, as those of nginx, Apache httpd and Caddy do.
func madeOfSize(etag string, size int64) bool {
	for _, base := range []int{10, 16, 36} {
		if strings.Contains(etag, strconv.FormatInt(size, base)) {
			return true
		}
	}
	return false
}

// timeless reports whether an ETag has the size as a part and tells no time in another, as Apache httpd makes it with
// FileETag Size or INode Size: it stays the same when a file is overwritten. D-261 says more.
func timeless(etag string, size int64, modTime time.Time) bool {
	if modTime.IsZero() || mayBeHash(etag) {
		// S3 servers write the number of parts behind a hash.
		return false
	}
	sized := false
	for _, part := range strings.FieldsFunc(etag, notAlphanumeric) {
		if tellsTime(part, modTime.Unix()) {
			return false
		}
		sized = sized || part == strconv.FormatInt(size, 16) || part == strconv.FormatInt(size, 10)
	}
	return sized
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// tellsTime reports whether a part of an ETag is the time, in seconds or smaller units.
func tellsTime(part string, seconds int64) bool {
	for _, base := range []int{10, 16, 36} {
		n, err := strconv.ParseInt(strings.ToLower(part), base, 64)
		for unit := int64(1); err == nil && unit <= int64(time.Second); unit *= 1000 {
			if n/unit == seconds {
				return true
			}
		}
	}
	return false
}

// strongETag reports whether a version is one that If-Match compares (RFC 9110, section 8.8.3), and a header can have:
// a listing of S3 can tell any bytes.
func strongETag(version string) bool {
	return len(version) > 2 && version[0] == '"' && version[len(version)-1] == '"' &&
		httpguts.ValidHeaderFieldValue(version)
}

// weak is an ETag for the weak comparison.
func weak(etag string) string { return strings.TrimPrefix(etag, "W/") }
