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

// Images are the names of millrace's image, of its keeper's and of Alluxio's in the chart's defaults.
func Images() (millrace, keeper, alluxio string, err error) {
	var about struct {
		Name       string `json:"name"`
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(chart, &about); err != nil {
		return "", "", "", fmt.Errorf("deploy/chart/Chart.yaml: %w", err)
	}
	var defaults struct {
		Image        string `json:"image"`
		AlluxioImage string `json:"alluxioImage"`
		Keeper       struct {
			Image string `json:"image"`
		} `json:"keeper"`
	}
	if err := yaml.Unmarshal(values, &defaults); err != nil {
		return "", "", "", fmt.Errorf("deploy/chart/values.yaml: %w", err)
	}
	if defaults.Image == "" {
		defaults.Image = about.Name + "/" + about.Name + ":" + about.AppVersion
	}
	if about.AppVersion == "" || defaults.AlluxioImage == "" || defaults.Keeper.Image == "" {
		return "", "", "", errors.New("deploy/chart: Chart.yaml names no appVersion, or values.yaml not all images")
	}
	return defaults.Image, defaults.Keeper.Image, defaults.AlluxioImage, nil
}
