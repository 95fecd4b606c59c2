package keeper

// Ended is how a serving process, or one in the background, ended.
type Ended struct {
	// Code is the exit code.
	Code int
	// Sentence says why, for the user.
	Sentence string
	// Told says that whoever reads standard error, or the log, has the sentence already.
	Told bool
}

func (e *Ended) Error() string { return e.Sentence }
