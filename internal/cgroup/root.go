package cgroup

// UnifiedRoot is where the cgroup2 tree is mounted, also one without controllers; "" where there is none.
func UnifiedRoot() string {
	mounts, err := hierarchies()
	if err != nil {
		return ""
	}
	return mounts[unified]
}
