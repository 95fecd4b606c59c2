// Package fakealluxio is a master and a worker of Alluxio in one process and on one port, which show a directory of
// this machine and lie about it.
//
// What is true is the directory: a file's id follows from its path, its inode and its change time, so that each
// version has its own. Blocks are kept as Alluxio's worker keeps them, one file a block, and are made by the same
// calls. Which answer is a lie, and which one, is drawn by its starter ([Config].Dice): the same draws give
// the same lies. lies.go lists them all: hostile numbers, names and addresses, answers that stop or never come,
// errors of one path.
//
// It is no Alluxio: nothing is evicted but by RemoveBlock and Free, and of the options of a call only those are
// heeded that millrace sets.
package fakealluxio
