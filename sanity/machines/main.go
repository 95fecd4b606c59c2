package machines

import (
	"encoding/json"
	"fmt"
	"os"
)

// The roles in which this program is started again, and the environment variable that says so.
const (
	roleVariable   = "MILLRACE_MACHINE"
	configVariable = "MILLRACE_MACHINE_CONFIG"
	supervisorRole = "supervisor"
	firstRole      = "first"
)

// Main is what the program does where it was started as a part of a machine, and it does not return then.
func Main() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	var config Config
	err := json.Unmarshal([]byte(os.Getenv(configVariable)), &config)
	if err == nil {
		switch role {
		case supervisorRole:
			err = supervise(config)
		case firstRole:
			err = boot(config)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "machine %s: %v\n", config.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}
