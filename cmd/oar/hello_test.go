package main

import "testing"

func TestIDRange(t *testing.T) {
	if got := idRange([]string{"0", "1306722304", "65536"}); got != "0 to 65535 here are 1306722304 to 1306787839 on the host" {
		t.Error(got)
	}
}
