package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// trialProgram is a static x86-64 ELF file: write(1, greeting), reboot(RESTART).
func trialProgram() []byte {
	const (
		base    = 0x400000
		headers = 64 + 56
	)
	greeting := []byte(trialGreeting + "\n")
	var code []byte
	emit := func(b ...byte) { code = append(code, b...) }
	emit32 := func(op byte, v uint32) { code = binary.LittleEndian.AppendUint32(append(code, op), v) }
	emit32(0xB8, 1)      // mov eax, SYS_write
	emit(0x89, 0xC7)     // mov edi, eax (stdout)
	emit(0x48, 0x8D)     // lea rsi, [rip + greeting]
	emit32(0x35, 0)      //   (set below)
	fix := len(code) - 4 //
	emit32(0xBA, uint32(len(greeting)))
	emit(0x0F, 0x05)         // syscall
	emit32(0xB8, 169)        // mov eax, SYS_reboot
	emit32(0xBF, 0xFEE1DEAD) // mov edi, LINUX_REBOOT_MAGIC1
	emit32(0xBE, 0x28121969) // mov esi, LINUX_REBOOT_MAGIC2
	emit32(0xBA, 0x01234567) // mov edx, LINUX_REBOOT_CMD_RESTART
	emit(0x45, 0x31, 0xD2)   // xor r10d, r10d
	emit(0x0F, 0x05)         // syscall
	emit(0xEB, 0xFE)         // jmp .
	binary.LittleEndian.PutUint32(code[fix:], uint32(len(code)-fix-4))
	size := uint64(headers + len(code) + len(greeting))

	le := binary.LittleEndian
	p := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	p = le.AppendUint16(p, 2)            // executable
	p = le.AppendUint16(p, 62)           // x86-64
	p = le.AppendUint32(p, 1)            // version
	p = le.AppendUint64(p, base+headers) // entry
	p = le.AppendUint64(p, 64)           // program headers
	p = le.AppendUint64(p, 0)            // section headers
	p = le.AppendUint32(p, 0)            // flags
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		p = le.AppendUint16(p, v)
	}
	p = le.AppendUint32(p, 1) // PT_LOAD
	p = le.AppendUint32(p, 5) // read, execute
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		p = le.AppendUint64(p, v)
	}
	return append(append(p, code...), greeting...)
}

// trialInitrd is a cpio archive (newc) with the program as /init, and the console that the kernel opens for it.
func trialInitrd() []byte {
	var out bytes.Buffer
	pad := func() { out.Write(make([]byte, -out.Len()&3)) }
	add := func(name string, mode, major, minor int, data []byte) {
		fmt.Fprintf(&out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor,
			len(name)+1, 0)
		out.WriteString(name + "\x00")
		pad()
		out.Write(data)
		pad()
	}
	add("dev", 0o040755, 0, 0, nil)
	add("dev/console", 0o020600, 5, 1, nil)
	add("init", 0o100755, 0, 0, trialProgram())
	add("TRAILER!!!", 0, 0, 0, nil)
	return out.Bytes()
}
