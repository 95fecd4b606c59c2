package fuse

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// forceGrace is how long readers of a session may go on after a forced unmount.
	forceGrace = 2 * time.Second
	// severGrace is how long the session may take to end once the device is given up, handlerGrace how much of that the
	// handlers have, and wakeInterval the time between two attempts to tell the workers.
	severGrace   = 5 * time.Second
	handlerGrace = 3 * time.Second
	wakeInterval = 10 * time.Millisecond
)

// Unmount ends the session's mount. It returns mountpoint.ErrBusy where the mount is in use, unless
// force is set: then the mount disappears at once, its readers may go on for two
// seconds, and then gets an error. It returns when the session has ended.
func (s *Session) Unmount(force bool) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	mounted, err := s.mounted()
	if err != nil {
		return err
	}
	if mounted {
		err = mountpoint.Detach(s.dir, mountpoint.Plainly)
		if errors.Is(err, mountpoint.ErrBusy) && force {
			err = mountpoint.Detach(s.dir, mountpoint.Lazily)
		}
		if err != nil {
			return err
		}
	}
	if !force {
		// The last reference goes with the unmount, unless another namespace has a copy.
		return s.awaitEnd(forceGrace, errors.New("unmounted here, but the mount lives on in another mount namespace"))
	}
	if s.awaitEnd(forceGrace, mountpoint.ErrBusy) == nil {
		return nil
	}
	return s.Abort()
}

// awaitEnd waits for the session's end and returns err where it does not come in time.
func (s *Session) awaitEnd(grace time.Duration, err error) error {
	select {
	case <-s.done:
		return nil
	case <-time.After(grace):
		return err
	}
}

// mounted reports whether the directory still shows this session's mount.
func (s *Session) mounted() (bool, error) {
	m, err := mountpoint.At(s.dir)
	if err != nil || m == nil {
		return false, err
	}
	return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) == s.devNumber, nil
}

// Abort ends the session whether or not the mount has users: it gives up the device, whereupon the kernel fails
// what is left once no other process holds it, and waits for the workers. What they wait for ends after that: the
// answer to a request that was given up would be EINTR, which no caller asked for.
func (s *Session) Abort() error { return s.giveUp() }

// sever takes the device away, unless the session has ended: its number may be another file's by then.
func (s *Session) sever() error {
	s.handles.Lock()
	defer s.handles.Unlock()
	select {
	case <-s.done:
		return nil
	default:
		return s.dev.sever()
	}
}

// giveUp takes the device away from the workers, ends what they wait for, and waits for them. What they answer
// after that reaches no caller.
func (s *Session) giveUp() error {
	if err := s.sever(); err != nil {
		return fmt.Errorf("giving up the device: %w", err)
	}
	s.deviceEnded(nil)
	for deadline := time.Now().Add(severGrace); time.Now().Before(deadline); {
		wakeThreads()
		if s.awaitEnd(wakeInterval, mountpoint.ErrBusy) == nil {
			return s.hung
		}
	}
	return ErrHangs
}
