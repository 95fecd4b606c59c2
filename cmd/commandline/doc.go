// Package commandline is what the programs of millrace have in common: how they read their arguments, what they say of
// wrong ones, how they log, print and end.
//
// # The programs
//
// millrace is what runs on nodes and what people type. millrace-controller and millrace-gateway are programs of their
// own, because what they are made of costs every process that is linked with it memory and time to start, used or not;
// they stand beside millrace, which becomes them when it is called as `millrace controller` or `millrace gateway`.
// Their help and their errors speak of them by these names.
package commandline
