#include "textflag.h"

// func cloneAndRun(args *unixCloneArgs, size, ops, header uintptr) (result uintptr)
//
// All signals are blocked around the clone: the child inherits the mask, and has no handler to run. That happens here, where the scheduler
// cannot move the goroutine to another thread in between.
//
// The child uses no stack: R12 is the operation, R13 the header, all else is loaded anew for each operation.
//
//	operation: 0 nr, 8…48 arguments, 56 store, 64 tolerated errors, 72 jump, 80 indirect arguments
TEXT ·cloneAndRun(SB), NOSPLIT, $0-40
	MOVQ ops+16(FP), R12
	MOVQ header+24(FP), R13
	MOVQ $14, AX // rt_sigprocmask(SIG_SETMASK, all, &old, 8)
	MOVQ $2, DI
	LEAQ 56(R13), SI
	LEAQ 64(R13), DX
	MOVQ $8, R10
	SYSCALL
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JZ   next
	MOVQ AX, result+32(FP)
	MOVQ $14, AX
	MOVQ $2, DI
	LEAQ 64(R13), SI
	XORL DX, DX
	MOVQ $8, R10
	SYSCALL
	RET

next:
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	MOVQ 80(R12), BX
	TESTQ BX, BX
	JZ   ready
	BTQ  $0, BX
	JCC  a1
	MOVQ (DI), DI
a1:
	BTQ  $1, BX
	JCC  a2
	MOVQ (SI), SI
a2:
	BTQ  $2, BX
	JCC  a3
	MOVQ (DX), DX
a3:
	BTQ  $3, BX
	JCC  a4
	MOVQ (R10), R10
a4:
	BTQ  $4, BX
	JCC  a5
	MOVQ (R8), R8
a5:
	BTQ  $5, BX
	JCC  ready
	MOVQ (R9), R9

ready:
	MOVQ 0(R12), AX
	CMPQ AX, $-1
	JEQ  jumpEqual
	CMPQ AX, $-2
	JEQ  set
	CMPQ AX, $-3
	JEQ  fork
	CMPQ AX, $-4
	JEQ  failWith
	SYSCALL
	CMPQ AX, $-4095
	JCC  error
	MOVQ 56(R12), BX
	TESTQ BX, BX
	JZ   advance
	MOVQ AX, (BX)

advance:
	ADDQ $88, R12
	JMP  next

jumpEqual:
	CMPQ SI, (DI)
	JNE  advance
	JMP  jump

set:
	MOVQ SI, (DI)
	JMP  advance

fork:
	MOVQ $435, AX
	SYSCALL
	TESTQ AX, AX
	JZ   advance
	CMPQ AX, $-4095
	JCC  fail
	XORQ DI, DI
	MOVQ $60, AX
	SYSCALL
	INT  $3

failWith:
	MOVQ DI, AX
	NEGQ AX
	JMP  fail

error:
	MOVQ AX, CX
	NEGQ CX
	CMPQ CX, $63
	JHI  fail
	MOVQ 64(R12), BX
	BTQ  CX, BX
	JCC  fail
	MOVQ 56(R12), BX
	TESTQ BX, BX
	JZ   jump
	MOVQ CX, (BX)

jump:
	MOVQ  72(R12), BX
	IMULQ $88, BX
	ADDQ  BX, R12
	JMP   next

fail:
	NEGQ AX
	MOVQ AX, 8(R13)
	MOVQ R12, 0(R13)
	MOVQ $1, DI
	MOVQ $60, AX
	SYSCALL
	INT  $3
