package fuse

import (
	"encoding/binary"
	"syscall"
	"testing"
)

// message is a request with this body.
func message(op uint32, unique, node uint64, body []byte) []byte {
	msg := make([]byte, inHeaderSize, inHeaderSize+len(body))
	binary.LittleEndian.PutUint32(msg, uint32(inHeaderSize+len(body)))
	binary.LittleEndian.PutUint32(msg[4:], op)
	binary.LittleEndian.PutUint64(msg[8:], unique)
	binary.LittleEndian.PutUint64(msg[16:], node)
	return append(msg, body...)
}

func TestParseRequests(t *testing.T) {
	body := make([]byte, 40)
	binary.LittleEndian.PutUint64(body[8:], 1<<40)
	binary.LittleEndian.PutUint32(body[16:], 4096)
	msg := message(opRead, 7, 9, body)
	h, ok := parseHeader(msg)
	if !ok || h != (inHeader{op: opRead, unique: 7, node: 9}) {
		t.Errorf("header %+v, %v", h, ok)
	}
	if r, ok := parseRead(msg); !ok || r != (readRange{offset: 1 << 40, size: 4096}) {
		t.Errorf("range %+v, %v", r, ok)
	}
	if _, ok := parseHeader(msg[:len(msg)-1]); ok {
		t.Error("a message that is cut off is accepted")
	}
	if _, ok := parseRead(msg[:inHeaderSize+19]); ok {
		t.Error("a READ that is cut off is accepted")
	}
	if name := parseName(message(opLookup, 1, 1, []byte("a b\x00"))); name != "a b" {
		t.Errorf("name %q", name)
	}
	if room := replyRoom(opReadDir, msg); room != fixedReplySize+4096 {
		t.Errorf("room for a listing: %d", room)
	}
}

func TestReplyHeader(t *testing.T) {
	reply := make([]byte, outHeaderSize)
	putHeader(reply, outHeaderSize, syscall.ESTALE, 1<<63|5)
	if got := replyErrno(reply); got != syscall.ESTALE {
		t.Errorf("errno %v", got)
	}
	if got := int32(binary.LittleEndian.Uint32(reply[4:])); got != -int32(syscall.ESTALE) {
		t.Errorf("on the wire %d", got)
	}
	if got := binary.LittleEndian.Uint64(reply[8:]); got != 1<<63|5 {
		t.Errorf("unique %x", got)
	}
}

func TestReadLength(t *testing.T) {
	for _, c := range []struct {
		size int64
		r    readRange
		want int
	}{
		{100, readRange{0, 10}, 10},
		{100, readRange{95, 10}, 5},
		{100, readRange{100, 10}, 0},
		{100, readRange{1 << 63, 10}, 0},
		{0, readRange{0, 10}, 0},
		{-1, readRange{0, 10}, 0},
		{5 << 30, readRange{5<<30 - 1, 1 << 20}, 1},
	} {
		if got := readLength(c.size, c.r); got != c.want {
			t.Errorf("%d bytes, %+v: %d, want %d", c.size, c.r, got, c.want)
		}
	}
}

// FuzzRequest: no message makes the parsers read beyond it.
func FuzzRequest(f *testing.F) {
	f.Add(message(opRead, 1, 1, make([]byte, 40)))
	f.Add(message(opLookup, 1, 1, []byte("name\x00")))
	f.Add(message(opGetXAttr, 1, 1, make([]byte, 8)))
	f.Add(message(opIoctl, 1, 1, make([]byte, 32)))
	f.Add(message(opInterrupt, 1, 1, make([]byte, 8)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		h, ok := parseHeader(msg)
		if !ok {
			return
		}
		_, _ = parseRead(msg)
		_, _ = parseInterrupt(msg)
		if name := parseName(msg); len(name) > len(msg) {
			t.Errorf("a name of %d bytes in %d", len(name), len(msg))
		}
		if room := replyRoom(h.op, msg); room < fixedReplySize {
			t.Errorf("room %d", room)
		}
	})
}
