package fleet

import (
	"fmt"
	"math/rand/v2"
)

// newName makes up a name for a machine: two words and a number.
func newName() string {
	first := [...]string{"amber", "bold", "brisk", "calm", "clear", "cool", "crisp", "deep", "early", "fair", "fresh", "gentle", "green", "keen", "late",
		"lucky", "mild", "north", "proud", "quick", "quiet", "rapid", "round", "sharp", "silent", "small", "solid", "steady", "still", "sunny", "swift", "warm"}
	second := [...]string{"ash", "bay", "birch", "bridge", "brook", "cedar", "cliff", "cloud", "dawn", "delta", "elm", "field", "fjord", "forest", "grove",
		"harbor", "heath", "hill", "lake", "leaf", "meadow", "moor", "oak", "pine", "plain", "ridge", "river", "shore", "spring", "stone", "trail", "valley"}
	return fmt.Sprintf("%s-%s-%04d", first[rand.N(len(first))], second[rand.N(len(second))], rand.N(10000))
}
