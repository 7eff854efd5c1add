package seccomp

// CallName is a system call's name on this machine's architecture; "" of a number that is none.
func CallName(number int) string {
	native, err := architectures(nil)
	if err != nil || len(native) == 0 || number < 0 {
		return ""
	}
	for name, numbers := range parseTable() {
		if numbers[native[0].column] == number {
			return name
		}
	}
	return ""
}
