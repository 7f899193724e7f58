package store

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// A group of deliveries is written as the driver writes it, into a buffer that is made once.
func TestRoomForTexts(t *testing.T) {
	t.Parallel()
	payloads := make([]string, 256)
	for i := range payloads {
		payloads[i] = strings.Repeat("ä", i%5*1000)
	}
	for name, texts := range map[string][]string{"payloads": payloads, "one": {"a"}, "none": {}, "nothing": nil} {
		ours := pgtype.NewMap()
		makeRoomForTexts(ours)
		for _, format := range []int16{pgtype.BinaryFormatCode, pgtype.TextFormatCode} {
			before := []byte("before")
			want, err := pgtype.NewMap().Encode(pgtype.TextArrayOID, format, texts, before)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.Encode(pgtype.TextArrayOID, format, texts, before)
			if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("%s in format %d: %d bytes, want %d (%v)", name, format, len(got), len(want), err)
			}
		}
	}
	ours := pgtype.NewMap()
	makeRoomForTexts(ours)
	buf, err := ours.Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, payloads, make([]byte, 0, 16))
	if err != nil {
		t.Fatal(err)
	}
	// One that has grown on the way has a quarter of its size to spare.
	if spare := cap(buf) - len(buf); spare > 8<<10 {
		t.Errorf("the buffer for %d bytes has %d to spare", len(buf), spare)
	}
}
