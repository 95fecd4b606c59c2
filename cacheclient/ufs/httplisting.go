package ufs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// rationed is a reader that fails when one value of a listing takes more than maxToken of it.
type rationed struct {
	src  io.Reader
	left int
}

func (r *rationed) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, fmt.Errorf("%w: a value in it is longer than %d bytes", errNoIndex, maxToken)
	}
	n, err := r.src.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// jsonEntry is an entry as the servers write it; the names are kept as they came, which may be no UTF-8.
type jsonEntry struct {
	Name json.RawMessage `json:"name"`
	// Type is nginx's: directory, file or other.
	Type *string `json:"type"`
	// URL and IsDir are Caddy's.
	URL   json.RawMessage `json:"url"`
	IsDir *bool           `json:"is_dir"`
	// PathType is that of dufs: Dir, SymlinkDir, File or SymlinkFile.
	PathType *string `json:"path_type"`
}

// parseJSON reads a listing as nginx (autoindex_format json) and Caddy write it, which is a list, or dufs, which has
// the list among other things. What is neither is no index, also in its middle.
func (i *index) parseJSON(page io.Reader) error {
	i.setRoot()
	ration := &rationed{src: page, left: maxToken}
	values := json.NewDecoder(ration)
	first, err := values.Token()
	if err != nil {
		return jsonError(err)
	}
	switch first {
	case json.Delim('['):
		err = i.jsonList(values, ration)
	case json.Delim('{'):
		err = i.jsonObject(values, ration)
	case nil:
		// Of an empty directory.
	default:
		return errNoIndex
	}
	if err != nil {
		return jsonError(err)
	}
	if _, err := values.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", errNoIndex)
	}
	return nil
}

// jsonObject finds the list of an object, and wants it to be there.
func (i *index) jsonObject(values *json.Decoder, ration *rationed) error {
	found, whole, failed := false, false, false
	for values.More() {
		key, err := values.Token()
		if err != nil {
			return err
		}
		switch key {
		case "href", "kind", "uri_prefix", "dir_exists":
			whole = true
		case "error", "errors":
			failed = true
		}
		if key != "paths" || found {
			var other json.RawMessage
			ration.left = maxToken
			if err := values.Decode(&other); err != nil {
				return err
			}
			continue
		}
		found = true
		if open, err := values.Token(); err != nil || open != json.Delim('[') {
			return errors.Join(errNoIndex, err)
		}
		if err := i.jsonList(values, ration); err != nil {
			return err
		}
	}
	if !found || i.entries == 0 && (!whole || failed) {
		// A list that is empty is what an error has, too.
		return errNoIndex
	}
	_, err := values.Token()
	return err
}

// jsonList reads the entries and the end of a list.
func (i *index) jsonList(values *json.Decoder, ration *rationed) error {
	for values.More() {
		var e jsonEntry
		ration.left = maxToken
		if err := values.Decode(&e); err != nil {
			return err
		}
		link, err := i.jsonLink(e)
		if err != nil {
			return err
		}
		if link.name == "" {
			continue
		}
		i.entries++
		if err := i.entry(link.name, link.dir); err != nil {
			return &callerError{err}
		}
	}
	_, err := values.Token()
	return err
}

// callerError is the caller's error on its way through.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }
func (e *callerError) Unwrap() error { return e.err }

// jsonLink is what an entry means; nginx's others are neither files nor directories, and are left out.
func (i *index) jsonLink(e jsonEntry) (link, error) {
	name, ok := unquote(e.Name)
	switch {
	case !ok || name == "":
		return link{}, fmt.Errorf("%w: an entry has no name", errNoIndex)
	case e.Type != nil:
		switch *e.Type {
		case "directory", "file":
			return link{name: name, dir: *e.Type == "directory"}, nil
		case "other":
			return link{}, nil
		}
	case e.IsDir != nil:
		// Its names are made UTF-8, and its addresses are not.
		if address, ok := unquote(e.URL); ok {
			if l := i.parseLink(address); l.name != "" {
				return link{name: l.name, dir: *e.IsDir}, nil
			}
		}
		return link{name: strings.TrimSuffix(name, "/"), dir: *e.IsDir}, nil
	case e.PathType != nil:
		switch *e.PathType {
		case "Dir", "SymlinkDir", "File", "SymlinkFile":
			return link{name: name, dir: strings.HasSuffix(*e.PathType, "Dir")}, nil
		}
	}
	return link{}, fmt.Errorf("%w: the entry %.80q has no kind", errNoIndex, name)
}

// jsonError is errNoIndex for what is no such listing, and what a cut body is for one that ends in its middle.
func jsonError(err error) error {
	var mine *callerError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mine):
		return mine.err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the listing ends in its middle: %w", io.ErrUnexpectedEOF)
	case errors.As(err, &syntax), errors.As(err, &kind):
		return fmt.Errorf("%w: %w", errNoIndex, err)
	}
	return err
}

// unquote is the text of a JSON string, with bytes that are no UTF-8 as they are, which encoding/json would replace.
func unquote(raw json.RawMessage) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), true
	}
	out := make([]byte, 0, len(raw))
	for k := 0; k < len(raw); {
		if raw[k] != '\\' || k+1 == len(raw) {
			out = append(out, raw[k])
			k++
			continue
		}
		var used int
		out, used = unescape(out, raw[k+1:])
		k += 1 + used
	}
	return string(out), true
}

// simpleEscapes are the characters after a backslash, and what they stand for.
var simpleEscapes = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape appends what an escape stands for, of which rest has what follows the backslash, and tells its length.
func unescape(out, rest []byte) ([]byte, int) {
	if rest[0] != 'u' {
		c, ok := simpleEscapes[rest[0]]
		if !ok {
			c = rest[0]
		}
		return append(out, c), 1
	}
	r, used := hexRune(rest), 5
	if utf16.IsSurrogate(r) && len(rest) >= 11 && rest[5] == '\\' && rest[6] == 'u' {
		if both := utf16.DecodeRune(r, hexRune(rest[6:])); both != utf8.RuneError {
			return utf8.AppendRune(out, both), 11
		}
	}
	return utf8.AppendRune(out, r), used
}

// hexRune is the number of an escape that begins with u; the decoder has checked its form.
func hexRune(s []byte) rune {
	if len(s) < 5 {
		return utf8.RuneError
	}
	n, err := strconv.ParseUint(string(s[1:5]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}

// parseXML reads a listing as nginx writes it (autoindex_format xml): <list> of <directory>, <file> and <other>, which
// have the name as their text. It is read by tokens, for encoding/xml takes no bytes that are not UTF-8.
func (i *index) parseXML(page io.Reader) error {
	i.setRoot()
	tokens := html.NewTokenizer(page)
	tokens.SetMaxBuf(maxToken)
	tokens.AllowCDATA(true)
	var x xmlListing
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return x.end(tokens.Err())
		case html.StartTagToken:
			name, _ := tokens.TagName()
			if err := x.begin(string(name)); err != nil {
				return err
			}
		case html.TextToken:
			if x.name = append(x.name, tokens.Text()...); len(x.name) > maxToken {
				return fmt.Errorf("%w: a text in it is longer than %d bytes", errNoIndex, maxToken)
			}
		case html.EndTagToken:
			tag, _ := tokens.TagName()
			name, dir, err := x.finish(string(tag))
			if err != nil {
				return err
			}
			if name == "" {
				continue
			}
			i.entries++
			if err := i.entry(name, dir); err != nil {
				return err
			}
		}
	}
}

// xmlListing is where a listing in XML is read.
type xmlListing struct {
	// open says that the list has begun, and closed that it has ended.
	open, closed bool
	// kind is the entry that is being read, and name its text.
	kind string
	name []byte
}

func (x *xmlListing) begin(tag string) error {
	switch {
	case !x.open && tag == "list":
		x.open = true
	case x.open && !x.closed && x.kind == "" && (tag == "directory" || tag == "file" || tag == "other"):
		x.kind, x.name = tag, nil
	default:
		return fmt.Errorf("%w: it has a <%.20s>", errNoIndex, tag)
	}
	return nil
}

// finish ends a tag, and gives the entry that it was, if any.
func (x *xmlListing) finish(tag string) (name string, dir bool, err error) {
	switch {
	case tag == x.kind && tag != "" && len(x.name) > 0:
		if name = string(x.name); tag == "other" {
			name = ""
		}
	case x.open && x.kind == "" && tag == "list":
		x.closed = true
	default:
		return "", false, fmt.Errorf("%w: it has a </%.20s>", errNoIndex, tag)
	}
	x.kind, x.name = "", nil
	return name, tag == "directory", nil
}

func (x *xmlListing) end(err error) error {
	switch {
	case errors.Is(err, html.ErrBufferExceeded):
		return fmt.Errorf("%w: a tag or text in it is longer than %d bytes", errNoIndex, maxToken)
	case !errors.Is(err, io.EOF):
		return err
	case !x.open:
		return errNoIndex
	case !x.closed:
		return fmt.Errorf("the listing ends in its middle: %w", io.ErrUnexpectedEOF)
	}
	return nil
}
