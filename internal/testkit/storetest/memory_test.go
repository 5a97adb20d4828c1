package storetest

import (
	"testing"

	"drover"
)

func TestMemory(t *testing.T) {
	Run(t, 50, func(*testing.T) drover.ObjectStore { return NewMemory() })
}
