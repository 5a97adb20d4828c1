package main

import (
	"net/http"
	"net/url"
	"runtime/debug"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"drover"
)

// version is that of the binary: the module's if it was built as one, else the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

// registryTransport is how registries are reached: through the proxy if there is one, whatever the registry's address is.
func registryTransport(proxy string) (http.RoundTripper, error) {
	if proxy == "" {
		return remote.DefaultTransport, nil
	}
	u, err := url.Parse(proxy)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "image_proxy: %w", err)
	}
	base, ok := remote.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, drover.Errorf(drover.Internal, "the registry library's transport is a %T, which has no proxy", remote.DefaultTransport)
	}
	t := base.Clone()
	t.Proxy = http.ProxyURL(u)
	return t, nil
}
