#include "textflag.h"

// Eight AES blocks at a time, so that the CPU's units for AES are busy: one block alone waits for each of its 14 rounds.

#define LOAD8(src, mask) \
	MOVOU 0(src), X0; MOVOU 16(src), X1; MOVOU 32(src), X2; MOVOU 48(src), X3; \
	MOVOU 64(src), X4; MOVOU 80(src), X5; MOVOU 96(src), X6; MOVOU 112(src), X7; \
	XORMASK(mask)

#define XORMASK(mask) \
	MOVOU 0(mask), X9; PXOR X9, X0; MOVOU 16(mask), X10; PXOR X10, X1; \
	MOVOU 32(mask), X9; PXOR X9, X2; MOVOU 48(mask), X10; PXOR X10, X3; \
	MOVOU 64(mask), X9; PXOR X9, X4; MOVOU 80(mask), X10; PXOR X10, X5; \
	MOVOU 96(mask), X9; PXOR X9, X6; MOVOU 112(mask), X10; PXOR X10, X7

#define STORE8(dst) \
	MOVOU X0, 0(dst); MOVOU X1, 16(dst); MOVOU X2, 32(dst); MOVOU X3, 48(dst); \
	MOVOU X4, 64(dst); MOVOU X5, 80(dst); MOVOU X6, 96(dst); MOVOU X7, 112(dst)

#define ROUND(op, keys, i) \
	MOVOU (i*16)(keys), X8; \
	op X8, X0; op X8, X1; op X8, X2; op X8, X3; op X8, X4; op X8, X5; op X8, X6; op X8, X7

#define ROUNDS(op, last, keys) \
	ROUND(PXOR, keys, 0); \
	ROUND(op, keys, 1); ROUND(op, keys, 2); ROUND(op, keys, 3); ROUND(op, keys, 4); ROUND(op, keys, 5); \
	ROUND(op, keys, 6); ROUND(op, keys, 7); ROUND(op, keys, 8); ROUND(op, keys, 9); ROUND(op, keys, 10); \
	ROUND(op, keys, 11); ROUND(op, keys, 12); ROUND(op, keys, 13); ROUND(last, keys, 14)

// func encryptMasked(keys *roundKeys, dst, src, mask *byte)
TEXT ·encryptMasked(SB), NOSPLIT, $0-32
	MOVQ keys+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ mask+24(FP), DX
	MOVQ $4, CX
encrypt:
	LOAD8(SI, DX)
	ROUNDS(AESENC, AESENCLAST, AX)
	XORMASK(DX)
	STORE8(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	ADDQ $128, DX
	DECQ CX
	JNZ encrypt
	RET

// func decryptMasked(keys *roundKeys, dst, src, mask *byte)
TEXT ·decryptMasked(SB), NOSPLIT, $0-32
	MOVQ keys+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ mask+24(FP), DX
	MOVQ $4, CX
decrypt:
	LOAD8(SI, DX)
	ROUNDS(AESDEC, AESDECLAST, AX)
	XORMASK(DX)
	STORE8(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	ADDQ $128, DX
	DECQ CX
	JNZ decrypt
	RET

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	SHLQ $32, AX
	MOVQ AX, X0
	AESKEYGENASSIST $0, X0, X1
	MOVQ X1, AX
	MOVL AX, ret+8(FP)
	RET

// func invMixColumns(key *[16]byte)
TEXT ·invMixColumns(SB), NOSPLIT, $0-8
	MOVQ key+0(FP), AX
	MOVOU (AX), X0
	AESIMC X0, X0
	MOVOU X0, (AX)
	RET
