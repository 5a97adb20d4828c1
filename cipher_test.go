package drover

import "testing"

func TestCiphersAreChecked(t *testing.T) {
	good := NewCipher()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	if err := (*Cipher)(nil).Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Cipher){
		"algorithm":   func(c *Cipher) { c.Algorithm = "rot13" },
		"sector size": func(c *Cipher) { c.SectorSize = 4096 },
		"no key":      func(c *Cipher) { c.Key = "" },
		"path":        func(c *Cipher) { c.Key = "key_../../../etc/pas" },
		"upper case":  func(c *Cipher) { c.Key = "key_0123456789ABCDEF" },
		"too long":    func(c *Cipher) { c.Key += "0" },
	} {
		c := *good
		spoil(&c)
		if err := c.Check(); !Is(err, Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if c.Equal(good) {
			t.Errorf("%s: equal to another", name)
		}
	}
	if !good.Equal(good) || good.Equal(nil) || !(*Cipher)(nil).Equal(nil) {
		t.Error("Equal is wrong")
	}
}
