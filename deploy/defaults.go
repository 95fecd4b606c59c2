// Package deploy knows the images that an installation runs where no others are named: those of the chart's defaults.
package deploy

import (
	_ "embed"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

var (
	//go:embed chart/Chart.yaml
	chart []byte
	//go:embed chart/values.yaml
	values []byte
)

// Images are the names of millrace's image and of Alluxio's in the chart's defaults.
func Images() (millrace, alluxio string, err error) {
	var about struct {
		Name       string `json:"name"`
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(chart, &about); err != nil {
		return "", "", fmt.Errorf("deploy/chart/Chart.yaml: %w", err)
	}
	var defaults struct {
		Image        string `json:"image"`
		AlluxioImage string `json:"alluxioImage"`
	}
	if err := yaml.Unmarshal(values, &defaults); err != nil {
		return "", "", fmt.Errorf("deploy/chart/values.yaml: %w", err)
	}
	if defaults.Image == "" {
		defaults.Image = about.Name + "/" + about.Name + ":" + about.AppVersion
	}
	if about.AppVersion == "" || defaults.AlluxioImage == "" {
		return "", "", errors.New("deploy/chart: Chart.yaml names no appVersion, or values.yaml no alluxioImage")
	}
	return defaults.Image, defaults.AlluxioImage, nil
}
