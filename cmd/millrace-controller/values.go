package main

import (
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"millrace.io/millrace/controller/nodes"
)

// Errors of these parsers are the second half of a sentence that begins with the flag and the value.

// parseTaint reads the key of a taint; "none" is none.
func parseTaint(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	return s, nodes.CheckTaint(s)
}

// parseNamespace reads the name of a namespace.
func parseNamespace(s string) (string, error) {
	if len(validation.IsDNS1123Label(s)) > 0 {
		return "", errors.New("not the name of a namespace: accepted are up to 63 of a-z, 0-9 and -, at no end a -")
	}
	return s, nil
}

// parseDriver reads the name of a CSI driver.
func parseDriver(s string) (string, error) {
	if len(s) > 63 || len(validation.IsDNS1123Subdomain(s)) > 0 {
		return "", errors.New("not the name of a CSI driver: accepted are up to 63 of a-z, 0-9, - and dots")
	}
	return s, nil
}

// parseAddress reads an address to listen on; "none" is none, and so is the "0" of other controllers.
func parseAddress(s string) (string, error) {
	if s == "none" || s == "0" {
		return "", nil
	}
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", errors.New("not an address: accepted are a port such as :8081, a host and a port, or none")
	}
	return s, nil
}

// parseDirs reads directories, separated by commas.
func parseDirs(s string) ([]string, error) {
	dirs := strings.Split(s, ",")
	for _, dir := range dirs {
		if !path.IsAbs(dir) {
			return nil,
				fmt.Errorf("%q is not absolute; accepted are directories such as /dev/shm, separated by commas", dir)
		}
	}
	return dirs, nil
}

// parseAgents reads the address of a Service; "none" is none.
func parseAgents(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
		return "", errors.New("not an address: accepted are HOST:PORT, such as " +
			"millrace-agent.millrace-system.svc:9064, and none")
	}
	return s, nil
}
