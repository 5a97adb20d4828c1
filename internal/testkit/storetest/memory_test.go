package storetest

import (
	"testing"

	"drover"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) drover.ObjectStore { return NewMemory() })
}
