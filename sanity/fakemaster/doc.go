// Package fakemaster is a master of Alluxio in this process, for tests of the controller. It leads or follows, and
// keeps a mount table, directories and notes as a master does. It tells of the workers and files that a test puts
// there.
//
// It reads no source and has no blocks: package fakealluxio shows a directory and lies about it.
package fakemaster
