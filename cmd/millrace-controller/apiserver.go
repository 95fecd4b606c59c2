package main

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// apiServer is how the API server is reached: by the file of --kubeconfig, else as kubectl does, else as a pod does.
func apiServer(file string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case err == nil:
		return config, nil
	case file != "":
		return nil, fmt.Errorf("--kubeconfig %q cannot be used: %w; accepted is a file that kubectl takes",
			file, fileError(err))
	case os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "":
		return nil, fmt.Errorf("KUBECONFIG=%q cannot be used: %w; accepted are files that kubectl takes",
			os.Getenv(clientcmd.RecommendedConfigPathEnvVar), fileError(err))
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("no API server is known; outside of a cluster give --kubeconfig FILE or set KUBECONFIG")
	default:
		return nil, fmt.Errorf("%s cannot be used: %w; give another file with --kubeconfig",
			clientcmd.RecommendedHomeFile, fileError(err))
	}
}

// errNoServer is what an empty file is called, and one of KUBECONFIG that is not there, which kubectl leaves out.
var errNoServer = errors.New("it names no API server")

// fileError is what is wrong with a file: the library's sentence where it is one of its own words.
func fileError(err error) error {
	var path *os.PathError
	switch {
	case errors.As(err, &path):
		return path.Err
	case clientcmd.IsEmptyConfig(err):
		return errNoServer
	default:
		return err
	}
}
