package liar

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is all of one response. A lie is a change of it, so that what is told is decided apart from how it is sent.
type answer struct {
	status int
	header map[string]string
	// length is the Content-Length as it is written; "" is none, and a body comes in chunks then.
	length string
	// bare sends the head alone, as HEAD asks for.
	bare bool
	// text is the body, or else the bytes of the content from there to there.
	text     []byte
	content  string
	from, to int64
	// lie names what is not as it should be; an honest answer has none.
	lie string

	// wait comes before the head. After so many bytes of the body comes a pause.
	wait, pause time.Duration
	pauseAt     int64
	// every is the pause after each piece of the body.
	every time.Duration
	// cut closes the connection after so many bytes of the body; -1 does not.
	cut int64
	// drop closes the connection without an answer.
	drop bool
	// swap overwrites the file when half of the body is sent, and returns the content that the rest is of.
	swap func() string
}

// plain is an answer without a body so far.
func plain(status int) *answer {
	return &answer{status: status, header: map[string]string{}, length: "0", cut: -1}
}

// page is an answer of text.
func textual(status int, kind, text string) *answer {
	a := plain(status)
	a.header["Content-Type"] = kind
	a.text, a.length = []byte(text), strconv.Itoa(len(text))
	return a
}

// size is the number of bytes of the body.
func (a *answer) size() int64 {
	if a.text != nil {
		return int64(len(a.text))
	}
	return a.to - a.from
}

// pieceBytes are sent at once.
const pieceBytes = 64 << 10

// body calls write for each piece of the body, and stops where the answer is cut, which it reports.
func (a *answer) body(write func([]byte) error) (whole bool, err error) {
	buf := make([]byte, pieceBytes)
	content, total := a.content, a.size()
	for sent := int64(0); sent < total; {
		n := min(int64(len(buf)), total-sent)
		if a.cut >= 0 {
			n = min(n, a.cut-sent)
		}
		if a.pause > 0 && sent < a.pauseAt {
			n = min(n, a.pauseAt-sent)
		}
		if a.swap != nil && sent < total/2 {
			n = min(n, total/2-sent)
		}
		if n <= 0 {
			return false, nil
		}
		p := buf[:n]
		if a.text != nil {
			p = a.text[sent : sent+n]
		} else {
			Fill(content, a.from+sent, p)
		}
		if err := write(p); err != nil {
			return false, err
		}
		sent += n
		time.Sleep(a.every)
		if a.pause > 0 && sent == a.pauseAt {
			time.Sleep(a.pause)
		}
		if a.swap != nil && sent == total/2 {
			content = a.swap()
		}
	}
	return true, nil
}

// send sends the answer: an honest one by net/http, another as it is written, over a connection that ends with it.
func (a *answer) send(w http.ResponseWriter) {
	if a.lie == "" {
		a.sendHonest(w)
		return
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	if a.drop {
		return
	}
	a.sendRaw(conn)
}

func (a *answer) sendHonest(w http.ResponseWriter) {
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	if a.length != "" {
		w.Header().Set("Content-Length", a.length)
	}
	w.WriteHeader(a.status)
	if a.bare {
		return
	}
	_, _ = a.body(func(p []byte) error {
		_, err := w.Write(p) //nolint:gosec // what a liar says is no page of ours
		return err
	})
}

// sendRaw writes what the answer says and checks nothing.
func (a *answer) sendRaw(conn net.Conn) {
	time.Sleep(a.wait)
	out := bufio.NewWriterSize(conn, pieceBytes)
	fmt.Fprintf(out, "HTTP/1.1 %d %s\r\nConnection: close\r\n", a.status, http.StatusText(a.status))
	names := make([]string, 0, len(a.header))
	for name := range a.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(out, "%s: %s\r\n", name, strings.NewReplacer("\r", "", "\n", "").Replace(a.header[name]))
	}
	chunks := a.length == "" && !a.bare
	switch {
	case chunks:
		fmt.Fprint(out, "Transfer-Encoding: chunked\r\n")
	case a.length != "":
		fmt.Fprintf(out, "Content-Length: %s\r\n", a.length)
	}
	fmt.Fprint(out, "\r\n")
	if a.bare {
		_ = out.Flush()
		return
	}
	whole, err := a.body(func(p []byte) error {
		if chunks {
			fmt.Fprintf(out, "%x\r\n", len(p))
		}
		_, _ = out.Write(p)
		if chunks {
			fmt.Fprint(out, "\r\n")
		}
		return out.Flush()
	})
	if err == nil && whole && chunks {
		fmt.Fprint(out, "0\r\n\r\n")
	}
	_ = out.Flush()
	// What the client has sent and was not read would make the end a reset, which takes bytes with it.
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = conn.Read(make([]byte, 1))
	}
}
