package ufs

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/html"
)

// markup is what the tokens of a page told beside its links. D-228 says what is believed to be an index.
type markup struct {
	// known says that there is something that index pages of empty directories have, too.
	known bool
	// named says that the page calls itself an index, and refusal that it calls itself what servers send in place of one.
	named, refusal bool
	// listed says that a link leads to the parent, or sorts by a column.
	listed bool
	// title says that the next text is the page's title or heading, and script that it is a script.
	title, script bool
	// open says that the page began as a whole document, and closed that it ended as one.
	open, closed bool
	// pre, form and password say that it has such elements, and words that it has text outside of titles and scripts.
	pre, form, password, words bool
	last                       string
	// held are entries of a page that is in doubt, and passed says that entries were passed on.
	held   []link
	passed bool
}

// mostDoubtful is how many entries a page may have that is in doubt: one of more is an index. mostBesideForm is how
// many links a page may have that asks for a password and does not say what it is.
const mostDoubtful, mostBesideForm = 256, 4

// refusalTitle is how the titles of pages begin that are to sign in by.
var refusalTitle = regexp.MustCompile(
	`(?i)^\s*((please\s+)?(sign|log)[\s-]*(in|on)\b|(your )?session (has )?expired|access denied|unauthori[sz]ed|` +
		`authentication required)`)

// text looks at a title, and at scripts that have the listing in them.
func (m *markup) text(tokens *html.Tokenizer) error {
	title, script := m.title, m.script
	m.title, m.script = false, false
	switch text := tokens.Text(); {
	case title && indexTitle.Match(text):
		m.known, m.named = true, true
	case title:
		m.refusal = m.refusal || refusalTitle.Match(text)
	case script && dufsScript.Match(text):
		return &listedElsewhereError{query: dufsQuery}
	case !script:
		m.words = m.words || len(bytes.TrimSpace(text)) > 0
	}
	return nil
}

// bare reports whether the page is a <pre> and nothing else, as that of an empty directory of Go's file server.
func (m *markup) bare(foreign int) bool { return m.pre && !m.words && foreign == 0 }

// doubtful reports whether a page so far may be what a server sends in place of an index.
func (m *markup) doubtful(expected bool) bool {
	return !m.named && !m.listed && !m.passed && (expected || m.refusal || m.form || m.password)
}

// refused reports whether a whole page is what a server sends in place of an index: it is to sign in by, or lacks the
// title that the index had before.
func (m *markup) refused(expected bool, entries int) bool {
	signIn := m.refusal && (m.form || m.password) || m.password && entries <= mostBesideForm
	return m.doubtful(expected) && (expected || signIn)
}

// hasScheme has the addresses that begin with a scheme.
var hasScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)

// parseAddress reads an address as browsers do, which follow a first name with a colon in it.
func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil && !hasScheme.MatchString(address) {
		return url.Parse("./" + address)
	}
	return u, err
}

// plainAddress is an address as browsers take it: a percent sign that begins no escape stands for itself, and bytes
// that control are escaped. In a literal one each percent sign stands for itself.
func plainAddress(address string, literal bool) string {
	var out strings.Builder
	for n := range len(address) {
		c := address[n]
		escape := n+2 < len(address) && isHex(address[n+1]) && isHex(address[n+2])
		switch {
		case c == '%' && (literal || !escape):
			out.WriteString("%25")
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&out, "%%%02X", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
