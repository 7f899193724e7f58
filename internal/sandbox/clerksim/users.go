package clerksim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// find returns a user that the API admits to.
func (s *Server) find(id string) (*user, error) {
	u := s.users[id]
	if u == nil || u.Forgotten {
		return nil, notFound("No user was found with id " + id + ".")
	}
	return u, nil
}

// getUser answers GET /v1/users/{id}.
func (s *Server) getUser(r *http.Request) (any, error) {
	u, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return u.render(), nil
}

// accepted names fields that Clerk takes and this instance has no use for.
type accepted struct {
	Web3Wallets   json.RawMessage `json:"web3_wallet"`
	Password      json.RawMessage `json:"password"`
	Digest        json.RawMessage `json:"password_digest"`
	Hasher        json.RawMessage `json:"password_hasher"`
	SkipChecks    json.RawMessage `json:"skip_password_checks"`
	SkipRequired  json.RawMessage `json:"skip_password_requirement"`
	SignOut       json.RawMessage `json:"sign_out_of_other_sessions"`
	TOTP          json.RawMessage `json:"totp_secret"`
	BackupCodes   json.RawMessage `json:"backup_codes"`
	DeleteSelf    json.RawMessage `json:"delete_self_enabled"`
	CreateOrg     json.RawMessage `json:"create_organization_enabled"`
	CreateLimit   json.RawMessage `json:"create_organizations_limit"`
	Legal         json.RawMessage `json:"legal_accepted_at"`
	SkipLegal     json.RawMessage `json:"skip_legal_checks"`
	NotifyPrimary json.RawMessage `json:"notify_primary_email_address_changed"`
	PrimaryWallet json.RawMessage `json:"primary_web3_wallet_id"`
	Image         json.RawMessage `json:"profile_image"`
	ImageID       json.RawMessage `json:"profile_image_id"`
}

// createUser answers POST /v1/users. Addresses and numbers given here count as verified, because
// the application vouches for them.
func (s *Server) createUser(r *http.Request) (any, error) {
	var in struct {
		accepted
		metadataChange
		Emails     []string   `json:"email_address"`
		Phones     []string   `json:"phone_number"`
		Username   string     `json:"username"`
		FirstName  string     `json:"first_name"`
		LastName   string     `json:"last_name"`
		ExternalID string     `json:"external_id"`
		Created    *time.Time `json:"created_at"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if len(in.Emails) == 0 && len(in.Phones) == 0 && in.Username == "" {
		return nil, invalid("form_data_missing", "", "A user needs an email address, a phone number or a username.")
	}
	u := &user{FirstName: maybe(in.FirstName), LastName: maybe(in.LastName), Username: maybe(in.Username), ExternalID: maybe(in.ExternalID)}
	for _, a := range in.Emails {
		address := strings.ToLower(a)
		if err := s.free(address); err != nil {
			return nil, err
		}
		u.Emails = append(u.Emails, ident{ID: s.newID("idn"), Value: address, Verified: true})
	}
	for _, n := range in.Phones {
		u.Phones = append(u.Phones, ident{ID: s.newID("idn"), Value: n, Verified: true})
	}
	if err := s.unique(u); err != nil {
		return nil, err
	}
	if err := in.apply(u, replaced); err != nil {
		return nil, err
	}
	if in.Created != nil {
		u.Created = millis(*in.Created)
	}
	if len(u.Emails) > 0 {
		u.Primary = &u.Emails[0].ID
	}
	s.add(u)
	return u.render(), nil
}

// updateUser answers PATCH /v1/users/{id}. Metadata given here replaces what was there.
func (s *Server) updateUser(r *http.Request) (any, error) {
	u, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	var in struct {
		accepted
		metadataChange
		FirstName  *string `json:"first_name"`
		LastName   *string `json:"last_name"`
		Username   *string `json:"username"`
		ExternalID *string `json:"external_id"`
		Primary    *string `json:"primary_email_address_id"`
		PrimaryTel *string `json:"primary_phone_number_id"`
		Created    *string `json:"created_at"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	next := *u // so that a refused request changes nothing
	set := func(field **string, to *string) {
		if to != nil {
			*field = maybe(*to)
		}
	}
	set(&next.FirstName, in.FirstName)
	set(&next.LastName, in.LastName)
	set(&next.Username, in.Username)
	set(&next.ExternalID, in.ExternalID)
	if in.Primary != nil {
		at := identified(u.Emails, *in.Primary)
		if at < 0 || !u.Emails[at].Verified {
			return nil, invalid("form_param_invalid", "primary_email_address_id", "must be a verified email address of the user")
		}
		next.Primary = in.Primary
	}
	if in.PrimaryTel != nil {
		if identified(u.Phones, *in.PrimaryTel) < 0 {
			return nil, invalid("form_param_invalid", "primary_phone_number_id", "must be a phone number of the user")
		}
		next.PrimaryTel = in.PrimaryTel
	}
	if err := s.unique(&next); err != nil {
		return nil, err
	}
	if err := in.apply(&next, replaced); err != nil {
		return nil, err
	}
	*u = next
	s.changed(u)
	return u.render(), nil
}

// mergeMetadata answers PATCH /v1/users/{id}/metadata.
func (s *Server) mergeMetadata(r *http.Request) (any, error) {
	u, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	var in metadataChange
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if err := in.apply(u, merged); err != nil {
		return nil, err
	}
	s.changed(u)
	return u.render(), nil
}

// deleteUser answers DELETE /v1/users/{id}.
func (s *Server) deleteUser(r *http.Request) (any, error) {
	u, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	s.remove(u)
	return u.deleted(), nil
}

// add takes a user in, fills what is missing and queues its user.created.
func (s *Server) add(u *user) {
	u.ID = s.newID("user")
	now := millis(s.now())
	u.Created = cmp.Or(u.Created, now)
	u.Updated = max(u.Created, now)
	u.Public, u.Private, u.Unsafe = u.Public.copy(), u.Private.copy(), u.Unsafe.copy()
	if u.PrimaryTel == nil && len(u.Phones) > 0 {
		u.PrimaryTel = &u.Phones[0].ID
	}
	s.users[u.ID] = u
	s.order = append(s.order, u.ID)
	s.happened("user.created", u.render())
}

// remove drops a user with its sessions and queues its user.deleted.
func (s *Server) remove(u *user) {
	delete(s.users, u.ID)
	s.order = slices.DeleteFunc(s.order, func(id string) bool { return id == u.ID })
	for id, session := range s.sessions {
		if session.UserID == u.ID {
			delete(s.sessions, id)
		}
	}
	s.happened("user.deleted", u.deleted())
}

// free refuses an address that is none, or that another user has.
func (s *Server) free(address string) error {
	if a, err := mail.ParseAddress(address); err != nil || a.Address != address {
		return invalid("form_param_format_invalid", "email_address", "must be a valid email address.")
	}
	for _, other := range s.users {
		if named(other.Emails, address) >= 0 {
			return invalid("form_identifier_exists", "email_address", "That email address is taken. Please try another.")
		}
	}
	return nil
}

// unique refuses a username or an external id that another user has.
func (s *Server) unique(u *user) error {
	for _, other := range s.users {
		switch {
		case other.ID == u.ID:
		case u.Username != nil && other.Username != nil && strings.EqualFold(*u.Username, *other.Username):
			return invalid("form_identifier_exists", "username", "That username is taken. Please try another.")
		case u.ExternalID != nil && other.ExternalID != nil && *u.ExternalID == *other.ExternalID:
			return invalid("form_identifier_exists", "external_id", "That external id is taken. Please try another.")
		}
	}
	return nil
}
