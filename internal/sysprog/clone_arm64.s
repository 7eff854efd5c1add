#include "textflag.h"

// func cloneAndRun(args *unixCloneArgs, size, ops, header uintptr) (result uintptr)
//
// Signals are blocked around the clone, as in clone_amd64.s.
//
// The child uses no stack: R19 is the operation, R20 the header, all else is loaded anew for each operation. A system call has its number
// in R8 and changes R0 only.
//
//	operation: 0 nr, 8…48 arguments, 56 store, 64 tolerated errors, 72 jump, 80 indirect arguments
TEXT ·cloneAndRun(SB), NOSPLIT, $0-40
	MOVD ops+16(FP), R19
	MOVD header+24(FP), R20
	MOVD $135, R8 // rt_sigprocmask
	MOVD $2, R0
	ADD  $56, R20, R1
	ADD  $64, R20, R2
	MOVD $8, R3
	SVC
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD $435, R8 // clone3
	SVC
	CBZ  R0, next
	MOVD R0, result+32(FP)
	MOVD $135, R8
	MOVD $2, R0
	ADD  $64, R20, R1
	MOVD ZR, R2
	MOVD $8, R3
	SVC
	RET

next:
	MOVD 8(R19), R0
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	MOVD 80(R19), R9
	CBZ  R9, ready
	TBZ  $0, R9, a1
	MOVD (R0), R0
a1:
	TBZ  $1, R9, a2
	MOVD (R1), R1
a2:
	TBZ  $2, R9, a3
	MOVD (R2), R2
a3:
	TBZ  $3, R9, a4
	MOVD (R3), R3
a4:
	TBZ  $4, R9, a5
	MOVD (R4), R4
a5:
	TBZ  $5, R9, ready
	MOVD (R5), R5

ready:
	MOVD 0(R19), R8
	CMN  $1, R8
	BEQ  jumpEqual
	CMN  $2, R8
	BEQ  set
	CMN  $3, R8
	BEQ  fork
	CMN  $4, R8
	BEQ  failWith
	SVC
	CMN  $4095, R0
	BCS  error
	MOVD 56(R19), R9
	CBZ  R9, advance
	MOVD R0, (R9)

advance:
	ADD $88, R19
	B   next

jumpEqual:
	MOVD (R0), R9
	CMP  R1, R9
	BNE  advance
	B    jump

set:
	MOVD R1, (R0)
	B    advance

fork:
	MOVD $435, R8
	SVC
	CBZ  R0, advance
	CMN  $4095, R0
	BCS  fail
	MOVD $0, R0
	MOVD $93, R8
	SVC
	UNDEF

failWith:
	NEG R0, R0
	B   fail

error:
	NEG  R0, R9
	CMP  $63, R9
	BHI  fail
	MOVD 64(R19), R10
	LSR  R9, R10, R10
	TBZ  $0, R10, fail
	MOVD 56(R19), R10
	CBZ  R10, jump
	MOVD R9, (R10)

jump:
	MOVD 72(R19), R9
	MOVD $88, R10
	MUL  R10, R9, R9
	ADD  R9, R19
	B    next

fail:
	NEG  R0, R0
	MOVD R0, 8(R20)
	MOVD R19, 0(R20)
	MOVD $1, R0
	MOVD $93, R8
	SVC
	UNDEF
