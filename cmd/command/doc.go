// Package command is how the programs of millrace read a command: its flags, its help, its completion in shells, and
// what it says of wrong arguments. It stands on github.com/spf13/cobra.
//
// What the programs share beyond that is in commandline, which knows no cobra: millrace-keeper is linked with
// commandline alone, because there is one keeper for each mount.
package command
