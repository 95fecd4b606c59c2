package keeper

// EndedError is how a serving process, or one in the background, ended.
type EndedError struct {
	// Code is the exit code.
	Code int
	// Sentence says why, for the user.
	Sentence string
	// Told says that standard error, or the log, has the sentence already.
	Told bool
}

func (e *EndedError) Error() string { return e.Sentence }
