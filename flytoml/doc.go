// Package flytoml reads the file fly.toml, which describes an app: the parts that concern what Drover has become configs of machines and volumes. What
// it has not is named with its line, and refused unless the caller lets it pass. It asks nobody and decides nothing about machines that there are.
package flytoml
