package ufs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// maxToken bounds one tag or text of an index page, in bytes, and by that the memory of a listing.
const maxToken = 1 << 20

// errNoIndex says that a page is not a directory's index.
var errNoIndex = errors.New("the page is no directory index, as web servers make them of a directory without " +
	"index.html")

// indexTitle is how the titles of the usual servers' index pages begin: Apache httpd, nginx and lighttpd
// write "Index of", Python "Directory listing for".
var indexTitle = regexp.MustCompile(`(?i)^\s*(index of|directory listing|listing of|directory:?\s)`)

// index is a directory's index as it is read.
type index struct {
	// base is the address that links are relative to, and root the directory itself, which ends in a slash.
	base, root *url.URL
	// entry is called for each entry, in the index's order, more than once where it is linked to more than once.
	entry func(name string, dir bool) error
	// asked is the directory's address that was asked for, where it is not base.
	asked *url.URL
	// strict says that only a page that calls itself an index is one.
	strict bool
	// literal says that nothing in an address is escaped.
	literal bool
	// endless says that the body has no length, so that only the page itself reports whether it was cut.
	endless bool

	// expected says that the directory had a page before that called itself an index.
	expected bool

	// named says that the page called itself an index.
	named bool
	// entries counts those that were found, foreign the links that lead elsewhere.
	entries, foreign int
	// goesOn says that there are more pages.
	goesOn bool
}

// listedElsewhereError says that the page is made by a script, and that its listing is at the same address with a
// query.
type listedElsewhereError struct{ query string }

func (*listedElsewhereError) Error() string { return "the page is made in the browser" }

// parseHTML reads a page, as a stream, so that its length does not matter. It returns errNoIndex when there is no
// entry, and nothing that index pages of empty directories have either.
func (i *index) parseHTML(page io.Reader) error {
	i.setRoot()
	tokens := html.NewTokenizer(page)
	tokens.SetMaxBuf(maxToken)
	var m markup
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return i.endHTML(tokens, &m)
		case html.TextToken:
			if err := m.text(tokens); err != nil {
				return err
			}
		case html.EndTagToken:
			name, _ := tokens.TagName()
			m.closed = m.closed || atom.Lookup(name) == atom.Html
		case html.StartTagToken, html.SelfClosingTagToken:
			if err := i.tag(tokens, &m); err != nil {
				return err
			}
		}
	}
}

// dufs shows a directory by a script, whose data is in the page, and as JSON on request.
const dufsQuery = "json"

var dufsScript = regexp.MustCompile(`^\s*DATA = \{`)

// tag takes what a tag tells: an entry, where it is a link to one.
func (i *index) tag(tokens *html.Tokenizer, m *markup) error {
	name, more := tokens.TagName()
	switch atom.Lookup(name) {
	case atom.Html:
		m.open = true
	case atom.Title, atom.H1:
		m.title = true
	case atom.Script:
		m.script = true
	case atom.Template:
		if attribute(tokens, more, "id") == "index-data" {
			return &listedElsewhereError{query: dufsQuery}
		}
	case atom.Pre:
		m.pre = true
	case atom.Form:
		m.form = true
	case atom.Input:
		m.password = m.password || strings.EqualFold(attribute(tokens, more, "type"), "password")
	case atom.Base:
		i.rebase(attribute(tokens, more, "href"))
	case atom.Link:
		i.goesOn = i.goesOn || attribute(tokens, more, "rel") == "next"
	case atom.A:
		return i.link(attribute(tokens, more, "href"), m)
	}
	return nil
}

// link takes what a link leads to. Icon and name may be two links to one entry.
func (i *index) link(address string, m *markup) error {
	link := i.parseLink(address)
	m.known, m.listed = m.known || link.known, m.listed || link.known
	i.goesOn = i.goesOn || link.next
	switch {
	case link.name == "" && !link.known && !link.next && address != "":
		i.foreign++
		return nil
	case link.name == "", link.key() == m.last:
		return nil
	case i.strict && !m.named:
		return errNoIndex
	}
	m.known, m.last = true, link.key()
	i.entries++
	if m.doubtful(i.expected) && len(m.held) < mostDoubtful {
		m.held = append(m.held, link)
		return nil
	}
	if err := i.release(m); err != nil {
		return err
	}
	return i.entry(link.name, link.dir)
}

// release passes on the entries of a page that was in doubt.
func (i *index) release(m *markup) error {
	held := m.held
	m.held, m.passed = nil, true
	for _, l := range held {
		if err := i.entry(l.name, l.dir); err != nil {
			return err
		}
	}
	return nil
}

// setRoot has the directory be the address of its index, with a slash at its end. A page of another name that a
// directory leads to, as /dir/ to /dir/index.html, is in it.
func (i *index) setRoot() {
	i.root = i.base
	switch {
	case strings.HasSuffix(i.base.Path, "/"):
	case i.asked != nil && strings.HasSuffix(i.asked.Path, "/") && path.Base(i.asked.Path) != path.Base(i.base.Path):
		i.root = i.base.ResolveReference(&url.URL{Path: "."})
	default:
		i.root = withPath(i.base, i.base.Path+"/", i.base.EscapedPath()+"/")
	}
}

// rebase has links be relative to another address, as browsers do for <base>.
func (i *index) rebase(address string) {
	relative, err := url.Parse(strip(address))
	if err != nil || address == "" {
		return
	}
	i.base = i.base.ResolveReference(relative)
}

func (i *index) endHTML(tokens *html.Tokenizer, m *markup) error {
	err := tokens.Err()
	switch {
	case errors.Is(err, html.ErrBufferExceeded):
		return fmt.Errorf("%w: a tag or text in it is longer than %d bytes", errNoIndex, maxToken)
	case !errors.Is(err, io.EOF):
		return err
	case i.endless && m.open && !m.closed, bytes.HasPrefix(bytes.TrimSpace(tokens.Raw()), []byte("<a ")):
		return fmt.Errorf("the page ends in its middle: %w", io.ErrUnexpectedEOF)
	case !m.known && !m.bare(i.foreign), i.strict && !m.named, m.refused(i.expected, i.entries):
		return errNoIndex
	}
	i.named = m.named
	return i.release(m)
}

// attribute is the value of an attribute of the tag whose name has just been read.
func attribute(tokens *html.Tokenizer, more bool, name string) string {
	for more {
		var key, value []byte
		key, value, more = tokens.TagAttr()
		if string(key) == name {
			return string(value)
		}
	}
	return ""
}

// strip takes the white space out of an address that browsers do.
func strip(address string) string {
	address = strings.TrimSpace(address)
	if strings.ContainsAny(address, "\t\r\n") {
		address = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(address)
	}
	return address
}

// link is what an address in an index page means.
type link struct {
	// name is the entry's, "" for a link that leads elsewhere.
	name string
	dir  bool
	// known says that index pages have such links: to the parent, or to sort by a column.
	known bool
	// next says that it leads to another page of the index.
	next bool
}

func (l link) key() string {
	if l.dir {
		return l.name + "/"
	}
	return l.name
}

// parseLink takes the name of an entry from its address. It must be below the directory on the same host, without a
// query. One that leads deeper is the directory on its way.
func (i *index) parseLink(address string) link {
	address = strip(address)
	if address == "" {
		return link{}
	}
	if name, slash := strings.CutSuffix(address, "/"); i.base == i.root && plainName(name) {
		return link{name: name, dir: slash}
	}
	relative, err := parseAddress(plainAddress(address, i.literal))
	if err != nil {
		return link{}
	}
	u, root := i.base.ResolveReference(relative), i.root
	if !i.here(u) {
		return link{}
	}
	if u.RawQuery != "" || u.ForceQuery {
		same := u.Path == root.Path || u.Path+"/" == root.Path
		return link{known: same && sortQuery.MatchString(u.RawQuery), next: same && nextQuery.MatchString(u.RawQuery)}
	}
	below, found := i.below(u)
	if !found {
		return link{known: strings.HasSuffix(u.Path, "/") && isParent(u.Path, root.Path)}
	}
	name, _, dir := strings.Cut(below, "/")
	// A slash that was escaped ends no name, and no file system has it in one: the border leaves it out and tells.
	plain, err := url.PathUnescape(name)
	if err != nil || plain == "" || plain == "." || plain == ".." {
		return link{}
	}
	return link{name: plain, dir: dir}
}

// below is the path of an address from the directory on, escaped; false where it is not below it.
func (i *index) below(u *url.URL) (string, bool) {
	if below, found := strings.CutPrefix(u.EscapedPath(), i.root.EscapedPath()); found {
		return below, true
	}
	// The same path may be escaped otherwise, or be literal.
	below, found := strings.CutPrefix(u.Path, i.root.Path)
	if !found && i.literal {
		below, found = strings.CutPrefix(u.Path, i.root.EscapedPath())
	}
	return escapePath(below), found
}

// here reports whether an address is on the host of the directory, and is of a file or a directory at all.
func (i *index) here(u *url.URL) bool {
	return (sameHost(i.root, u) || sameHost(u, i.root)) && u.User == nil && u.Opaque == "" && u.Fragment == ""
}

// plainName reports whether an address is a name and cannot be anything else. Most are, and
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

// nextQuery is how an index that is spread over pages names the others.
var nextQuery = regexp.MustCompile(`(^|&)(page|start|offset|marker|after|continuation-token)=[^&]`)

// isParent reports whether the directory parent holds the directory path; both end in "/".
func isParent(parent, path string) bool {
	rest, found := strings.CutPrefix(path, parent)
	return found && strings.Count(rest, "/") == 1
}
