package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// timestamp reads a moment as people write it and gives seconds since 1970 with a fraction, which is what the engine reads: a duration
// before now (10m), a date with or without a time and a zone, or such seconds already.
func timestamp(text string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return seconds(now.Add(-d)), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return seconds(t), nil
		}
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return seconds(t), nil
		}
	}
	whole, fraction, _ := strings.Cut(text, ".")
	_, err := strconv.ParseInt(whole, 10, 64)
	if _, bad := strconv.ParseUint("0"+fraction, 10, 64); err != nil || bad != nil || len(fraction) > 9 {
		return "", fmt.Errorf("%q is no time: write 10m, 2026-01-31T15:04:05 or seconds since 1970", text)
	}
	return text, nil
}

// period puts --since and --until into a query, where they were given.
func period(q url.Values, since, until string) error {
	for name, text := range map[string]string{"since": since, "until": until} {
		if text == "" {
			continue
		}
		moment, err := timestamp(text, time.Now())
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		q.Set(name, moment)
	}
	return nil
}

func seconds(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
