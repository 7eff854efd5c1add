package docker

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
)

// TestLongLists: a list that several processors encode reads as one that one does.
func TestLongLists(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	type row struct{ Name, Text string }
	for _, n := range []int{0, 1, shortList - 1, 2 * shortList, 3*shortList + 1, 1000} {
		list := []row{}
		for i := range n {
			list = append(list, row{strconv.Itoa(i), "],[<\n"})
		}
		one, several := httptest.NewRecorder(), httptest.NewRecorder()
		if err := writeJSON(one, http.StatusOK, list); err != nil {
			t.Fatal(err)
		}
		if err := writeList(several, list); err != nil {
			t.Fatal(err)
		}
		if one.Body.String() != several.Body.String() || several.Header().Get("Content-Type") != "application/json" || several.Code != 200 {
			t.Errorf("%d rows: %d bytes, not %d", n, several.Body.Len(), one.Body.Len())
		}
	}
}
