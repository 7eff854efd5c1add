/* Compiles a profile with libseccomp: lines on stdin, BPF to the file that is named, names that the library does not know to stdout.
 *
 *   default ACTION            first line
 *   arch NAME                 x86_64, x86, x32
 *   rule ACTION NAME [INDEX OP VALUE VALUE2]…
 *
 * Without a file it answers each line, an interface and a name, with the call's number there.
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	char line[4096];
	scmp_filter_ctx ctx = NULL;
	while (argc < 2 && fgets(line, sizeof line, stdin)) {
		uint32_t interface = seccomp_arch_resolve_name(strtok(line, " \n"));
		printf("%d\n", seccomp_syscall_resolve_name_arch(interface, strtok(NULL, " \n")));
	}
	if (argc < 2)
		return 0;
	while (fgets(line, sizeof line, stdin)) {
		char *word = strtok(line, " \n");
		if (!word)
			continue;
		if (!strcmp(word, "default")) {
			ctx = seccomp_init(strtoul(strtok(NULL, " \n"), NULL, 0));
			if (!ctx)
				return 2;
			seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
			seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
			continue;
		}
		if (!strcmp(word, "arch")) {
			if (seccomp_arch_add(ctx, seccomp_arch_resolve_name(strtok(NULL, " \n"))))
				return 3;
			continue;
		}
		uint32_t action = strtoul(strtok(NULL, " \n"), NULL, 0);
		char *name = strtok(NULL, " \n");
		int nr = seccomp_syscall_resolve_name(name);
		if (nr == __NR_SCMP_ERROR) {
			printf("%s\n", name);
			continue;
		}
		struct scmp_arg_cmp args[6];
		unsigned n = 0;
		char *w;
		while (n < 6 && (w = strtok(NULL, " \n"))) {
			args[n].arg = strtoul(w, NULL, 0);
			args[n].op = strtoul(strtok(NULL, " \n"), NULL, 0);
			args[n].datum_a = strtoull(strtok(NULL, " \n"), NULL, 0);
			args[n].datum_b = strtoull(strtok(NULL, " \n"), NULL, 0);
			n++;
		}
		int err = seccomp_rule_add_array(ctx, action, nr, n, args);
		if (err) {
			fprintf(stderr, "rule for %s: %s\n", name, strerror(-err));
			return 4;
		}
	}
	int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
	return fd < 0 || seccomp_export_bpf(ctx, fd) ? 5 : 0;
}
