package fuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// maxWrite is the least that the kernel accepts, in bytes. Nothing is written, and the
	// buffers that requests are read into may be small for it.
	maxWrite = 4096
	// wantedPages bounds a READ: 1 MiB with pages of 4 KiB. More gains nothing measurable.
	wantedPages = 256
	// defaultPages is the kernel's bound where it does not know of another
	// (FUSE_DEFAULT_MAX_PAGES_PER_REQ).
	defaultPages = 32
	// maxBackground bounds the read-ahead requests that the kernel has in flight, and
	// congestion is where it stops to read ahead for want of pressure.
	maxBackground = 64
	congestion    = 48
	// readAheadLimit lets the kernel keep its own read-ahead, which INIT can only lower.
	readAheadLimit = 64 << 20
	// stackDepth is the depth of file systems below this one: a backing file must not be on
	// a stacked one itself.
	stackDepth = 1
)

// initPatience is how long INIT may take to come.
const initPatience = 10 * time.Second

// Offsets in struct fuse_init_out behind the header.
const (
	initOutMajor      = 0
	initOutMinor      = 4
	initOutFlags      = 12
	initOutBackground = 16
	initOutMaxPages   = 28
	initOutFlags2     = 32
	initOutStack      = 36
	initOutSize       = 64
)

// maxReply is the largest body of a reply, in bytes.
func maxReply() int { return wantedPages * os.Getpagesize() }

// newProtocol makes the decoder of all requests but READ and INTERRUPT. It learns what the
// kernel speaks from the INIT request, which a later process can replay to it.
func newProtocol(fs *filesystem, passthrough bool, logger *slog.Logger) *gofuse.ProtocolServer {
	opts := &gofuse.MountOptions{
		MaxWrite:            maxWrite,
		MaxReadAhead:        readAheadLimit,
		MaxBackground:       maxBackground,
		CongestionThreshold: congestion,
		MaxStackDepth:       stackDepth,
		// go-fuse's own messages are for its developers.
		Logger: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		// A node is one version: what the kernel cached of it never goes wrong.
		ExplicitDataCacheControl: true,
		// CAP_ASYNC_DIO is left out on purpose: with it the kernel waits for reads past the page
		// cache without listening to signals, and a killed process stays in state D.
		ExtraCapabilities:    gofuse.CAP_READDIRPLUS_AUTO,
		DisabledCapabilities: gofuse.CAP_NO_OPEN_SUPPORT,
		PanicHandler: func(r any) gofuse.Status {
			fs.panicked(r)
			return gofuse.EIO
		},
	}
	if !passthrough {
		opts.DisabledCapabilities |= gofuse.CAP_PASSTHROUGH
	}
	return gofuse.NewProtocolServer(fs, opts)
}

// initialize reads INIT, the first request of a connection, and answers it.
func (s *Session) initialize() error {
	// The kernel has it ready when mount(2) returns.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.dev.fd), Events: unix.POLLIN}},
		int(initPatience.Milliseconds())); err == nil && n == 0 {
		return errors.New("no first request comes from the kernel: the device is no new FUSE connection's")
	}
	buf := make([]byte, requestSize)
	n, err := s.dev.read(buf)
	if err != nil {
		return fmt.Errorf("reading the kernel's first request: %w", err)
	}
	msg := buf[:n]
	if h, ok := parseHeader(msg); !ok || h.op != opInit {
		return errors.New("the kernel's first request is not INIT")
	}
	// Before the answer: the kernel does not send it again to a process that comes after an answer.
	if err := s.state.saveInit(msg); err != nil {
		return err
	}
	reply, err := s.negotiate(pagesLimit())
	if err != nil {
		return err
	}
	if errno := s.dev.write(reply); errno != 0 {
		return fmt.Errorf("answering INIT: %w", errno)
	}
	return nil
}

// negotiate feeds INIT to the decoder and completes its reply. ProtocolServer derives the
// size of READs from that of WRITEs, which are not wanted here.
func (s *Session) negotiate(pages uint16) ([]byte, error) {
	reply := make([]byte, fixedReplySize)
	n, status := s.protocol.HandleRequest([][]byte{bytes.Clone(s.state.init())}, [][]byte{reply})
	if n < outHeaderSize+initOutSize || status != gofuse.OK || replyErrno(reply) != 0 {
		return nil, errors.New("the kernel's FUSE protocol is too old (7.28 or later is needed, Linux 4.20)")
	}
	reply = reply[:n]
	body := reply[outHeaderSize:]
	if !s.passthrough {
		binary.LittleEndian.PutUint32(body[initOutStack:], 0)
	}
	flags := uint64(binary.LittleEndian.Uint32(body[initOutFlags:])) | uint64(binary.LittleEndian.Uint32(body[initOutFlags2:]))<<32
	if flags&gofuse.CAP_MAX_PAGES == 0 {
		pages = defaultPages
	}
	binary.LittleEndian.PutUint16(body[initOutMaxPages:], pages)
	s.kernel = KernelSettings{
		Protocol: fmt.Sprintf("%d.%d", binary.LittleEndian.Uint32(body[initOutMajor:]),
			binary.LittleEndian.Uint32(body[initOutMinor:])),
		Flags:         flags,
		MaxRequest:    int(pages) * os.Getpagesize(),
		MaxBackground: int(binary.LittleEndian.Uint16(body[initOutBackground:])),
		Passthrough:   flags&gofuse.CAP_PASSTHROUGH != 0,
	}
	return reply, nil
}

// pagesLimit is the number of pages of a READ: what is wanted, or less where the kernel
// allows less.
func pagesLimit() uint16 {
	text, err := os.ReadFile("/proc/sys/fs/fuse/max_pages_limit")
	if err != nil {
		return wantedPages
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit <= 0 {
		return wantedPages
	}
	return uint16(min(limit, wantedPages))
}
