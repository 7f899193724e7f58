package store

import (
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// makeRoomForTexts has the driver make its buffer large enough for an array of texts before it
// writes the first of them. It begins each statement with a small one, which would grow, be copied
// and be thrown away some twenty times until a group of deliveries with their payloads is in it.
func makeRoomForTexts(types *pgtype.Map) {
	texts, ok := types.TypeForOID(pgtype.TextArrayOID)
	if !ok {
		return
	}
	if codec, ok := texts.Codec.(*pgtype.ArrayCodec); ok {
		types.RegisterType(&pgtype.Type{Name: texts.Name, OID: texts.OID, Codec: textsCodec{codec}})
	}
}

type textsCodec struct{ *pgtype.ArrayCodec }

// PlanEncode implements [pgtype.Codec].
func (c textsCodec) PlanEncode(types *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	plan := c.ArrayCodec.PlanEncode(types, oid, format, value)
	if _, flat := value.(pgtype.FlatArray[string]); !flat || plan == nil || format != pgtype.BinaryFormatCode {
		return plan
	}
	return textsPlan{plan}
}

type textsPlan struct{ pgtype.EncodePlan }

// What stands in front of an array of one dimension in PostgreSQL's binary form, and of each of its
// elements.
const (
	arrayHeaderSize = 20
	elementHeader   = 4
)

// Encode implements [pgtype.EncodePlan].
func (p textsPlan) Encode(value any, buf []byte) ([]byte, error) {
	texts, _ := value.(pgtype.FlatArray[string])
	size := arrayHeaderSize
	for _, text := range texts {
		size += elementHeader + len(text)
	}
	return p.EncodePlan.Encode(value, slices.Grow(buf, size)) //nolint:wrapcheck // the driver's own, to the driver
}
