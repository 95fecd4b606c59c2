package ufs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"millrace.io/millrace/cacheclient"
)

// listPage is a page of a listing of either version as the server wrote it. D-225 says why the SDK does not read it.
type listPage struct {
	// objects and prefixes have their keys as they came, encoded or not.
	objects, prefixes []s3Item
	truncated         bool
	// token and marker are what the next page is asked for by.
	token, marker string
	// encoding is how the server says that names are encoded.
	encoding string
}

// pageKey is the key of the listPage that a request's answer is read into.
type pageKey struct{}

// errNoPage says that a listing is none in its middle, or is cut, and errElse that an answer does not begin as one.
var (
	errNoPage = errors.New("its listing is cut or no XML")
	errElse   = errors.New("answers with something else")
)

// errLongText says that a page has a tag or a text that no page has.
var errLongText = fmt.Errorf("its listing has a tag or a text of more than %d bytes: %w", maxToken,
	cacheclient.ErrTooLarge)

// mostNested bounds how deep the elements of a listing are nested.
const mostNested = 16

// mostItems is how many entries a page may have: it is in memory as a whole. A thousand are asked for, and some servers
// send all that there are.
const mostItems = 128 << 10

// errManyItems says that a page has more of them.
var errManyItems = fmt.Errorf("its listing has more than %d entries on a page: %w", mostItems, cacheclient.ErrTooLarge)

// pageReader is where a page of a listing is read.
type pageReader struct {
	page *listPage
	// open are the names of the elements that are open, closed says that the outermost has ended, and text is that of
	// the innermost.
	open   []string
	closed bool
	text   []byte
	// object is the entry that is being read, keyed says that it has a key, and unclear that a size or a time is told
	// that is none.
	object         s3Item
	keyed, unclear bool
}

// readPage reads a page, by tokens, since encoding/xml takes no byte that XML has not, and keys have such.
func readPage(body io.Reader, page *listPage) error {
	tokens := html.NewTokenizer(body)
	tokens.SetMaxBuf(maxToken)
	tokens.AllowCDATA(true)
	p := pageReader{page: page}
	for {
		var err error
		switch tokens.Next() {
		case html.ErrorToken:
			return p.end(tokens.Err())
		case html.StartTagToken:
			err = p.begin(tagName(tokens))
		case html.SelfClosingTagToken:
			name := tagName(tokens)
			if err = p.begin(name); err == nil {
				err = p.finish(name)
			}
		case html.TextToken:
			if len(p.open) > 0 {
				p.text = appendXMLText(p.text, tokens.Raw())
			}
			if len(p.text) > maxToken {
				err = errLongText
			}
		case html.EndTagToken:
			err = p.finish(tagName(tokens))
		}
		if err != nil {
			return err
		}
	}
}

// tagName is the name of a tag in small letters and without a prefix.
func tagName(tokens *html.Tokenizer) string {
	name, _ := tokens.TagName()
	_, local, prefixed := strings.Cut(string(name), ":")
	if prefixed {
		return local
	}
	return string(name)
}

func (p *pageReader) begin(name string) error {
	switch {
	case len(p.open) == 0 && !p.closed && name != "listbucketresult":
		return errElse
	case p.closed:
		return fmt.Errorf("%w: it has a <%.20s>", errNoPage, name)
	case len(p.open) >= mostNested:
		return fmt.Errorf("%w: it is nested deeper than %d elements", errNoPage, mostNested)
	case len(p.page.objects)+len(p.page.prefixes) > mostItems:
		return errManyItems
	case len(p.open) == 1:
		p.object, p.keyed, p.unclear = s3Item{size: cacheclient.UnknownSize}, false, false
	}
	p.open = append(p.open, name)
	p.text = p.text[:0]
	return nil
}

func (p *pageReader) finish(name string) error {
	n := len(p.open) - 1
	if n < 0 || p.open[n] != name {
		return fmt.Errorf("%w: it has a </%.20s>", errNoPage, name)
	}
	text := p.text
	p.open, p.text = p.open[:n], p.text[:0]
	switch n {
	case 0:
		p.closed = true
	case 1:
		return p.field(name, string(text))
	case 2:
		p.part(p.open[1], name, string(text))
	}
	return nil
}

// field takes what a page tells of itself, and an entry at its end.
func (p *pageReader) field(name, text string) (err error) {
	switch name {
	case "contents":
		if !p.keyed {
			return errors.New("the server's listing has an object without a key")
		}
		if p.unclear {
			// The object itself tells.
			p.object.size = cacheclient.UnknownSize
		}
		p.page.objects = append(p.page.objects, p.object)
	case "istruncated":
		if text = strings.TrimSpace(text); text != "" {
			if p.page.truncated, err = strconv.ParseBool(strings.ToLower(text)); err != nil {
				return fmt.Errorf("the server's listing says %.20q to whether it goes on", text)
			}
		}
	case "nextcontinuationtoken":
		p.page.token = text
	case "nextmarker":
		p.page.marker = text
	case "encodingtype":
		p.page.encoding = strings.TrimSpace(text)
	}
	return nil
}

// part takes what a page tells of one entry. A size or a time that is none is not known, and no error: it concerns that
// object alone.
func (p *pageReader) part(of, name, text string) {
	switch {
	case of == "commonprefixes" && name == "prefix":
		p.page.prefixes = append(p.page.prefixes, s3Item{key: text, common: true})
	case of != "contents":
	case name == "key":
		p.object.key, p.keyed = text, true
	case name == "etag":
		p.object.etag = text
	case name == "size":
		size, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
		if p.unclear = p.unclear || err != nil; err == nil {
			p.object.size = int64(size)
		}
	case name == "lastmodified":
		var told bool
		p.object.modTime, told = listedTime(strings.TrimSpace(text))
		p.unclear = p.unclear || !told
	}
}

// listedTime is the time that a listing tells, in whole seconds as responses tell it.
func listedTime(text string) (time.Time, bool) {
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(form, text); err == nil {
			return t.Truncate(time.Second).UTC(), true
		}
	}
	t, err := http.ParseTime(text)
	return t, err == nil
}

func (p *pageReader) end(err error) error {
	switch {
	case errors.Is(err, html.ErrBufferExceeded):
		return errLongText
	case !errors.Is(err, io.EOF):
		return err
	case len(p.open) == 0 && !p.closed:
		return errElse
	case !p.closed:
		return fmt.Errorf("%w: %w", errNoPage, io.ErrUnexpectedEOF)
	}
	return nil
}

const cdataBegin, cdataEnd = "<![CDATA[", "]]>"

// xmlEntities are the characters that XML has names for.
var xmlEntities = map[string]rune{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\''}

// appendXMLText appends what a text of XML means. Bytes that XML has not are as they are, and so are references to
// characters that it has not.
func appendXMLText(out, raw []byte) []byte {
	s := string(raw)
	if plain, cdata := strings.CutPrefix(s, cdataBegin); cdata {
		return append(out, strings.TrimSuffix(plain, cdataEnd)...)
	}
	for {
		before, rest, found := strings.Cut(s, "&")
		out = append(out, before...)
		if !found {
			return out
		}
		name, after, ends := strings.Cut(rest, ";")
		r, known := reference(name)
		if !ends || !known {
			out, s = append(out, '&'), rest
			continue
		}
		out, s = utf8.AppendRune(out, r), after
	}
}

// reference is the character that a reference of XML names.
func reference(name string) (rune, bool) {
	number, numbered := strings.CutPrefix(name, "#")
	if !numbered {
		r, known := xmlEntities[name]
		return r, known
	}
	base := 10
	if hex, is := strings.CutPrefix(number, "x"); is {
		number, base = hex, 16
	}
	n, err := strconv.ParseUint(number, base, 31)
	if err != nil {
		return 0, false
	}
	return rune(n), true
}

// items are the entries of a page in the order of their keys, by the names that they have.
func (p *listPage) items() []s3Item {
	items := slices.Concat(p.objects, p.prefixes)
	for n := range items {
		items[n].key = decoded(items[n].key, p.encoding)
	}
	slices.SortStableFunc(items, func(a, b s3Item) int { return cmp.Compare(a.key, b.key) })
	return items
}
