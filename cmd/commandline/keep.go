package commandline

import (
	"errors"
	"os"

	"millrace.io/millrace/fuse/keeper"
)

// Keep keeps a mount as ordered; err is what was wrong with the order. It is all that millrace-keeper does, and what
// millrace does where that is not installed.
func Keep(order *keeper.Order, err error) error {
	if err != nil {
		return err
	}
	if order.Detached {
		// A working directory would keep the file system that it is on busy.
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	log := NewLog(os.Stderr, order.LogLevel, order.LogFormat)
	err = keeper.Keep(order, log)
	var ended *keeper.EndedError
	if err == nil || !order.Detached || errors.As(err, &ended) && ended.Told {
		return err
	}
	log.Error("ended", "error", OneLine(err.Error()))
	return &keeper.EndedError{Code: Code(err), Sentence: err.Error(), Told: true}
}
