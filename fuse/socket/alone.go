package socket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alonePause is the time between two looks at whether a predecessor has gone.
const alonePause = 20 * time.Millisecond

// Alone returns once no other process has what is behind the socket at path, and keeps it that way until the file is
// closed or this process is gone. One that ends may do its work for a while after it has stopped to listen, and is
// waited for; one that answers is ErrInUse.
func Alone(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ctx.Err()
			if Answers(path) {
				err = ErrInUse
			}
		}
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("socket %s: %w", path, err)
		}
		select {
		case <-time.After(alonePause):
		case <-ctx.Done():
		}
	}
}
