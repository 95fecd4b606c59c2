package gateway

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"millrace.io/millrace/cacheclient"
)

// maxKeys is how many items a page has at most, as in S3.
const maxKeys = 1000

// listing is what a request for a listing asks for.
type listing struct {
	v2                                     bool
	prefix, delimiter, marker, token, from string
	most                                   int
	urlEncoded, owner                      bool
}

// parseListing reads the query of a listing of either version.
func parseListing(q url.Values) (listing, error) {
	l := listing{
		v2: q.Get("list-type") == "2", prefix: q.Get("prefix"), delimiter: q.Get("delimiter"), most: maxKeys,
		marker: q.Get("marker"), token: q.Get("continuation-token"), from: q.Get("start-after"),
		urlEncoded: q.Get("encoding-type") == "url",
	}
	l.owner = !l.v2 || q.Get("fetch-owner") == "true"
	if kind := q.Get("list-type"); kind != "" && kind != "2" {
		return listing{}, invalidArgument("list-type is 2 or absent.")
	}
	if encoding := q.Get("encoding-type"); encoding != "" && encoding != "url" {
		return listing{}, invalidArgument("encoding-type is url or absent.")
	}
	if s := q.Get("max-keys"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || n < 0 {
			return listing{}, invalidArgument("max-keys is a number from 0 on.")
		}
		l.most = int(min(n, maxKeys))
	}
	if _, err := base64.URLEncoding.DecodeString(l.token); err != nil {
		return listing{}, invalidArgument("The continuation token provided is incorrect.")
	}
	return l, nil
}

// after is the key that the page begins after.
func (l listing) after() string {
	if !l.v2 {
		return l.marker
	}
	if l.token == "" {
		return l.from
	}
	// It was checked.
	key, _ := base64.URLEncoding.DecodeString(l.token)
	return string(key)
}

// encode writes a key as the client asked for.
func (l listing) encode(key string) string {
	if !l.urlEncoded {
		return key
	}
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(key), "+", "%20"), "%2F", "/")
}

// listObjects answers a page of a listing.
func (g *Gateway) listObjects(w http.ResponseWriter, r *http.Request, _ string) error {
	l, err := parseListing(r.URL.Query())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), metadataTimeout, errBusy)
	defer cancel()
	page := &walker{
		windows: g.windows, prefix: l.prefix, delimiter: l.delimiter, after: l.after(), most: l.most,
		plain: !l.urlEncoded,
	}
	if l.most > 0 {
		err := page.walk(ctx)
		g.tellLeftOut(page)
		if err != nil {
			return err
		}
	}
	last := ""
	if page.more {
		last = page.items[len(page.items)-1].key
	}
	items, err := g.complete(ctx, page.items)
	if err != nil {
		return err
	}
	writeXML(w, http.StatusOK, g.document(l, items, last))
	return nil
}

// complete adds what the source's own listing lacks. A file that cannot be described, for one because it has gone, is
// left out, but not where the source does not answer.
func (g *Gateway) complete(ctx context.Context, items []item) ([]item, error) {
	infos := make([]*cacheclient.Info, 0, len(items))
	for i := range items {
		if !items[i].common {
			infos = append(infos, &items[i].info)
		}
	}
	if err := g.attributes.complete(ctx, infos); err != nil {
		return nil, err
	}
	kept := items[:0]
	left, first := 0, ""
	for _, i := range items {
		switch {
		case i.common, i.info.Dir == strings.HasSuffix(i.key, "/") && i.info.Size >= 0:
			kept = append(kept, i)
		default:
			if left++; first == "" {
				first = i.key
			}
		}
	}
	g.metrics.leftOut.WithLabelValues("file").Add(float64(left))
	if left > 0 && g.told.first(first) {
		g.log.Warn("files that cannot be described are left out of a listing", "files", left, "first", first)
	}
	return kept, nil
}

// tellLeftOut names at the end what a page lacks, each directory once.
func (g *Gateway) tellLeftOut(page *walker) {
	g.metrics.leftOut.WithLabelValues("directory").Add(float64(len(page.leftOut)))
	g.metrics.leftOut.WithLabelValues("name").Add(float64(page.unshown))
	fresh := slices.DeleteFunc(slices.Clone(page.leftOut), func(d leftOut) bool { return !g.told.first(d.path + "/") })
	if len(fresh) > 0 {
		g.log.Warn("directories that cannot be listed are left out of a listing", "directories", len(fresh), "first",
			fresh[0].path, "error", fresh[0].err)
	}
	if page.unshown > 0 && g.told.first("//"+page.prefix) {
		g.log.Warn("keys that a listing cannot show are left out; those of a client that asks for encoding-type=url "+
			"are not",
			"prefix", page.prefix, "keys", page.unshown)
	}
}

// inXML reports whether a document can show a key: it has no word for most controls (XML 1.0, section 2.2).
func inXML(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	})
}

// commonPrefix, object and owner are parts of a listing's document.
type (
	commonPrefix struct{ Prefix string }
	owner        struct{ ID, DisplayName string }
	object       struct {
		Key          string
		LastModified string
		ETag         string
		Size         int64
		Owner        *owner `xml:",omitempty"`
		StorageClass string
	}
)

// listDocument is the answer to a listing of either version.
type listDocument struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Xmlns                 string   `xml:"xmlns,attr"`
	Name                  string
	Prefix                string
	Marker                *string `xml:",omitempty"`
	NextMarker            string  `xml:",omitempty"`
	StartAfter            string  `xml:",omitempty"`
	ContinuationToken     string  `xml:",omitempty"`
	NextContinuationToken string  `xml:",omitempty"`
	KeyCount              *int    `xml:",omitempty"`
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []object
	CommonPrefixes        []commonPrefix
}

// document writes a page; last is its last key if another page follows, else "".
func (g *Gateway) document(l listing, items []item, last string) listDocument {
	d := listDocument{
		Xmlns: xmlns, Name: g.cfg.Bucket, Prefix: l.encode(l.prefix), MaxKeys: l.most, Delimiter: l.encode(l.delimiter),
		IsTruncated: last != "",
	}
	if l.urlEncoded {
		d.EncodingType = "url"
	}
	if l.v2 {
		count := len(items)
		d.KeyCount, d.StartAfter, d.ContinuationToken = &count, l.encode(l.from), l.token
		d.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(last))
	} else {
		marker := l.encode(l.marker)
		d.Marker, d.NextMarker = &marker, l.encode(last)
	}
	for _, i := range items {
		if i.common {
			d.CommonPrefixes = append(d.CommonPrefixes, commonPrefix{l.encode(i.key)})
			continue
		}
		o := object{
			Key: l.encode(i.key), LastModified: isoTime(modified(i.info)), ETag: etag(i.info), Size: i.info.Size,
			StorageClass: "STANDARD",
		}
		if l.owner {
			o.Owner = &owner{"millrace", "millrace"}
		}
		d.Contents = append(d.Contents, o)
	}
	return d
}
