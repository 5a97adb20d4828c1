package api

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"

	"drover"
	"drover/fleet"
)

// logToken is where in the logs of an app's machines a page ended. Clients give it back as they got it.
type logToken struct {
	// turn is the machine with which the next page begins, so that one that writes a lot does not keep the others out.
	turn   int
	places map[drover.MachineID]logPlace
}

// logPlace is an offset in the log that a machine has under one placement.
type logPlace struct {
	epoch  drover.Epoch
	offset int64
}

// logTokenVersion is the first byte of a token, logTokenSize bounds it as text.
const (
	logTokenVersion = 1
	logTokenSize    = 32 << 10
)

// String writes the token: after the version and the turn, 7 bytes of each machine's ID, its epoch and its offset.
func (t logToken) String() string {
	b := binary.AppendUvarint([]byte{logTokenVersion}, uint64(t.turn))
	for _, id := range slices.Sorted(maps.Keys(t.places)) {
		raw, err := hex.DecodeString(string(id))
		if err != nil || len(raw) != 7 {
			continue // no machine has such an ID
		}
		b = append(b, raw...)
		b = binary.AppendUvarint(b, uint64(t.places[id].epoch))
		b = binary.AppendUvarint(b, uint64(t.places[id].offset))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// keep forgets the machines that are not among those given.
func (t *logToken) keep(views []fleet.MachineView) {
	there := map[drover.MachineID]bool{}
	for _, v := range views {
		there[v.Machine.ID] = true
	}
	maps.DeleteFunc(t.places, func(id drover.MachineID, _ logPlace) bool { return !there[id] })
}

// parseLogToken reads a token; none is the beginning.
func parseLogToken(text string) (logToken, error) {
	t := logToken{places: map[drover.MachineID]logPlace{}}
	if text == "" {
		return t, nil
	}
	wrong := drover.Errorf(drover.Invalid, "next_token is not one that this server gave out").WithField("next_token").WithHint("leave it out to begin with the last lines")
	if len(text) > logTokenSize {
		return t, wrong
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || b[0] != logTokenVersion {
		return t, wrong
	}
	b = b[1:]
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			err = wrong
			return 0
		}
		b = b[n:]
		return v
	}
	t.turn = int(next() % logMachines)
	for err == nil && len(b) > 0 {
		if len(b) < 7 {
			return t, wrong
		}
		id := drover.MachineID(hex.EncodeToString(b[:7]))
		b = b[7:]
		t.places[id] = logPlace{epoch: drover.Epoch(next()), offset: int64(next())}
	}
	if err != nil {
		return t, wrong
	}
	return t, nil
}
