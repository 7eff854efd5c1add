#include "textflag.h"

// The first code of oar when it is linked with -E oar_entry (the Makefile does): before the Go runtime wakes, it executes the binary again
// from a read-only mount of its own where a command makes a container's process (see protect.go, which does the same without it, for the
// price of starting the Go runtime twice). It calls nothing, keeps the kernel's stack for the runtime, and goes on there when anything fails.
//
//	stack: argc, argv…, NULL, envp…, NULL, auxiliary vector
DATA selfExe<>+0(SB)/8, $"/proc/se"
DATA selfExe<>+8(SB)/8, $"lf/exe\x00\x00"
GLOBL selfExe<>(SB), RODATA, $16

// "run", "exec", "create" and "restore" as words, with their final NUL.
#define RUN 0x006e7572
#define EXEC 0x0063657865
#define CREATE 0x00657461657263
#define RESTORE 0x0065726f74736572

TEXT oar_entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ SP, R12
	SUBQ $256, SP
	MOVQ $EXEC, R13
	MOVQ $CREATE, R14
	MOVQ $RESTORE, R15
	LEAQ 16(R12), BX // argv[1]

argument:
	MOVQ (BX), SI
	TESTQ SI, SI
	JZ   runtime
	ADDQ $8, BX
	MOVQ (SI), AX // 8 bytes: the file name stands behind the last string
	CMPL AX, $RUN
	JEQ  found
	CMPQ AX, R15
	JEQ  found
	MOVQ AX, CX
	SHLQ $24, CX
	SHRQ $24, CX
	CMPQ CX, R13
	JEQ  found
	SHLQ $8, AX
	SHRQ $8, AX
	CMPQ AX, R14
	JNE  argument

found: // fcntl(0, F_DUPFD, 255), close: the table of descriptors grows while no other thread makes that wait (see sysprog, Fork)
	MOVQ $72, AX
	XORL DI, DI
	XORL SI, SI
	MOVQ $255, DX
	SYSCALL
	TESTQ AX, AX
	JLT  room
	MOVQ AX, DI
	MOVQ $3, AX
	SYSCALL

room: // statfs: is the mount read-only already?
	MOVQ $137, AX
	LEAQ selfExe<>(SB), DI
	MOVQ SP, SI
	SYSCALL
	TESTQ AX, AX
	JNZ  runtime
	MOVQ 80(SP), AX // f_flags
	TESTQ $1, AX    // ST_RDONLY
	JNZ  runtime

	MOVQ $428, AX // open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)
	MOVQ $-100, DI
	LEAQ selfExe<>(SB), SI
	MOVQ $0x80001, DX
	SYSCALL
	TESTQ AX, AX
	JLT  runtime
	MOVQ AX, R13

	MOVQ $442, AX // mount_setattr(fd, "", AT_EMPTY_PATH, {MOUNT_ATTR_RDONLY|NOSUID|NODEV}, 32)
	MOVQ R13, DI
	LEAQ selfExe<>+14(SB), SI
	MOVQ $0x1000, DX
	MOVQ $7, 0(SP)
	MOVQ $0, 8(SP)
	MOVQ $0, 16(SP)
	MOVQ $0, 24(SP)
	MOVQ SP, R10
	MOVQ $32, R8
	SYSCALL
	TESTQ AX, AX
	JNZ  runtime

	MOVQ $322, AX // execveat(fd, "", argv, envp, AT_EMPTY_PATH)
	MOVQ R13, DI
	LEAQ selfExe<>+14(SB), SI
	LEAQ 8(R12), DX
	MOVQ 0(R12), CX
	LEAQ 16(R12)(CX*8), R10
	MOVQ $0x1000, R8
	SYSCALL

runtime:
	MOVQ R12, SP
	XORL DX, DX
	JMP  _rt0_amd64_linux(SB)
