package ufs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxToken bounds one tag or text of an index page, in bytes, and by that the memory of a listing.
const maxToken = 1 << 20

// errNoIndex says that a page is not a directory's index.
var errNoIndex = errors.New("the page is no directory index, as web servers make them of a directory without index.html")

// indexTitle is how the titles of the usual servers' index pages begin: Apache httpd, nginx and lighttpd
// write "Index of", Python "Directory listing for".
var indexTitle = regexp.MustCompile(`(?i)^\s*(index of|directory listing|listing of|directory:?\s)`)

// parseIndex calls fn for each entry that the page links to, in the page's order; base is the URL of the page. The page
// is read as a stream, so that its length does not matter. It returns errNoIndex when there is no entry, and nothing that
// index pages of empty directories have either.
func parseIndex(page io.Reader, base *url.URL, fn func(name string, dir bool) error) error {
	tokens := html.NewTokenizer(page)
	tokens.SetMaxBuf(maxToken)
	var last string
	known, title := false, false
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return endOfIndex(tokens.Err(), known)
		case html.TextToken:
			if title && indexTitle.Match(tokens.Text()) {
				known = true
			}
			title = false
		case html.StartTagToken, html.SelfClosingTagToken:
			tag, attributes := tokens.TagName()
			switch kind := atom.Lookup(tag); kind {
			case atom.Title, atom.H1:
				title = true
			case atom.Pre:
				// The page of Go's file server is this and nothing else.
				known = true
			case atom.A:
				link := parseLink(base, href(tokens, attributes))
				known = known || link.known
				// Icon and name may be two links to the same entry.
				if link.name == "" || link.key() == last {
					continue
				}
				known, last = true, link.key()
				if err := fn(link.name, link.dir); err != nil {
					return err
				}
			}
		}
	}
}

func endOfIndex(err error, known bool) error {
	switch {
	case errors.Is(err, html.ErrBufferExceeded):
		return fmt.Errorf("%w: a tag or text in it is longer than %d bytes", errNoIndex, maxToken)
	case !errors.Is(err, io.EOF):
		return err
	case !known:
		return errNoIndex
	}
	return nil
}

// href is the address of the link whose tag has just been read.
func href(tokens *html.Tokenizer, more bool) string {
	for more {
		var key, value []byte
		key, value, more = tokens.TagAttr()
		if bytes.Equal(key, []byte("href")) {
			return string(value)
		}
	}
	return ""
}

// link is what an address in an index page means.
type link struct {
	// name is the entry's, "" for a link that leads elsewhere.
	name string
	dir  bool
	// known says that index pages have such links: to the parent, or to sort by a column.
	known bool
}

func (l link) key() string {
	if l.dir {
		return l.name + "/"
	}
	return l.name
}

// parseLink takes the name of an entry from its address. It must be directly below base on
// the same host, without query, and its name one that a file system can have.
func parseLink(base *url.URL, address string) link {
	address = strings.TrimSpace(address)
	if address == "" {
		return link{}
	}
	if name, slash := strings.CutSuffix(address, "/"); plainName(name) {
		return link{name: name, dir: slash}
	}
	relative, err := url.Parse(address)
	if err != nil {
		return link{}
	}
	u := base.ResolveReference(relative)
	if u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return link{}
	}
	if u.RawQuery != "" || u.ForceQuery {
		return link{known: u.Path == base.Path && sortQuery.MatchString(u.RawQuery)}
	}
	below, found := strings.CutPrefix(u.Path, base.Path)
	if !found {
		return link{known: strings.HasSuffix(u.Path, "/") && isParent(u.Path, base.Path)}
	}
	escaped := u.EscapedPath()
	dir := strings.HasSuffix(escaped, "/")
	name := below
	if dir {
		name = strings.TrimSuffix(name, "/")
		escaped = escaped[:len(escaped)-1]
	}
	// A slash that was escaped ends no name, so the name is looked for in both forms.
	last := escaped[strings.LastIndexByte(escaped, '/')+1:]
	if strings.Contains(last, "%2F") || strings.Contains(last, "%2f") || !validName(name) {
		return link{}
	}
	return link{name: name, dir: dir}
}

// plainName tells whether an address is a name and cannot be anything else. Most are, and
// need not be taken apart as URLs.
func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && s != "." && s != ".."
}

// sortQuery is how the columns of index pages are sorted: ?C=N;O=D in Apache httpd and nginx's fancyindex,
// ?sort=name&order=asc in Caddy.
var sortQuery = regexp.MustCompile(`^(C=[NMSD](;|&)O=[AD]|sort=|order=)`)

// isParent tells whether the directory parent holds the directory path; both end in "/".
func isParent(parent, path string) bool {
	rest, found := strings.CutPrefix(path, parent)
	return found && strings.Count(rest, "/") == 1
}
