package clerksim

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// user is one user as the instance keeps it. Times are in milliseconds.
type user struct {
	ID         string   `json:"id"`
	FirstName  *string  `json:"first_name"`
	LastName   *string  `json:"last_name"`
	Username   *string  `json:"username"`
	ExternalID *string  `json:"external_id"`
	Emails     []ident  `json:"emails"`
	Phones     []ident  `json:"phones"`
	Primary    *string  `json:"primary_email"` // id of an entry of Emails
	PrimaryTel *string  `json:"primary_phone"`
	Public     metadata `json:"public"`
	Private    metadata `json:"private"`
	Unsafe     metadata `json:"unsafe"`
	Banned     bool     `json:"banned"`
	Created    int64    `json:"created"`
	Updated    int64    `json:"updated"`
	LastActive *int64   `json:"last_active"`
	LastSignIn *int64   `json:"last_sign_in"`
	Forgotten  bool     `json:"forgotten"` // the API denies that it exists
}

// ident is an email address or a phone number.
type ident struct {
	ID       string `json:"id"`
	Value    string `json:"value"`
	Verified bool   `json:"verified"`
}

// render is the user object of the API; webhooks carry the same.
func (u *user) render() map[string]any {
	image := "https://img.clerk.com/sandbox/" + u.ID
	return map[string]any{
		"object": "user", "id": u.ID,
		"first_name": u.FirstName, "last_name": u.LastName, "username": u.Username, "external_id": u.ExternalID,
		"email_addresses":          renderIdents(u.Emails, "email_address", nil),
		"primary_email_address_id": u.Primary,
		"phone_numbers": renderIdents(u.Phones, "phone_number", map[string]any{
			"reserved_for_second_factor": false, "default_second_factor": false, "backup_codes": nil}),
		"primary_phone_number_id": u.PrimaryTel,
		"web3_wallets":            []any{}, "primary_web3_wallet_id": nil,
		"external_accounts": []any{}, "saml_accounts": []any{}, "enterprise_accounts": []any{}, "passkeys": []any{},
		"public_metadata": u.Public.copy(), "private_metadata": u.Private.copy(), "unsafe_metadata": u.Unsafe.copy(),
		"has_image": false, "image_url": image, "profile_image_url": image,
		"password_enabled": false, "two_factor_enabled": false, "totp_enabled": false, "backup_code_enabled": false,
		"mfa_enabled_at": nil, "mfa_disabled_at": nil, "legal_accepted_at": nil,
		"banned": u.Banned, "locked": false, "lockout_expires_in_seconds": nil, "verification_attempts_remaining": 100,
		"create_organization_enabled": true, "create_organizations_limit": nil, "delete_self_enabled": true,
		"last_active_at": u.LastActive, "last_sign_in_at": u.LastSignIn,
		"created_at": u.Created, "updated_at": u.Updated,
	}
}

func renderIdents(idents []ident, kind string, more map[string]any) []any {
	out := []any{}
	for _, i := range idents {
		verification := map[string]any{"status": "unverified", "strategy": "email_code", "attempts": nil, "expire_at": nil}
		if kind == "phone_number" {
			verification["strategy"] = "phone_code"
		}
		if i.Verified {
			verification["status"], verification["attempts"] = "verified", 1
		}
		o := map[string]any{"object": kind, "id": i.ID, kind: i.Value, "reserved": false, "verification": verification, "linked_to": []any{}}
		maps.Copy(o, more)
		out = append(out, o)
	}
	return out
}

// deleted is what the API answers to a deletion. The webhook carries the same.
func (u *user) deleted() map[string]any {
	d := map[string]any{"object": "user", "id": u.ID, "deleted": true}
	if u.ExternalID != nil {
		d["external_id"] = *u.ExternalID
	}
	return d
}

// named finds an address or number by its value.
func named(idents []ident, value string) int {
	return slices.IndexFunc(idents, func(i ident) bool { return strings.EqualFold(i.Value, value) })
}

// identified finds an address or number by its id.
func identified(idents []ident, id string) int {
	return slices.IndexFunc(idents, func(i ident) bool { return i.ID == id })
}

// maybe is nil for the empty string, which Clerk keeps as null.
func maybe(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// deref is the opposite of maybe.
func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// mustJSON encodes what this package has built itself.
func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps, strings and numbers come here
	}
	return b
}
