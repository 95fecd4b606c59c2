// Package liar is a test bed whose sources lie: web servers, buckets, directories and an Alluxio that behave by a seed,
// and a model beside them that knows what is right.
//
// # The life of a seed
//
//  1. [Draw] makes a plan of the number: the kind of source, the themes of its lies, the flags of the mount (plan.go).
//  2. The plan makes a [World]: files, directories, and what is odd about each for good (world.go, tree.go).
//  3. A [Source] shows the world, and lies about it: an answer is described as data, a lie changes the description,
//     and one function sends it (answer.go, lies.go, http.go, s3.go). A directory is changed underneath (local.go).
//  4. The real program mounts the source (mount.go). Readers use it by system calls (reader.go, reading.go), a hand
//     changes the world, and the process is killed now and then (run.go).
//  5. In the truce nothing lies for the moment, and everything has to come right within a time (truce.go).
//
// # What is right
//
// Bytes that one handle gives are of one version of the file, or the call fails. Honest files in the same mount never
// fail. A listing has each entry that was there throughout exactly once. No call takes longer than its deadline, or
// fails with EINTR before it took as long as a signal is waited for. The process dies only when it is killed, and its
// memory and its tier stay within bounds (judge.go).
//
// A lie that agrees with itself in everything cannot be noticed by any client, and is not told: each lie differs from
// something else that the same source says.
//
// Draws go by words and not by turns ([Seed.Dice]), so that a seed replays however its goroutines come to run.
package liar
