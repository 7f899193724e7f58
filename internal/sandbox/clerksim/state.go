package clerksim

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// state is what Save writes. Faults, limits and the secret key are not part of it.
type state struct {
	Instance string     `json:"instance"`
	Users    []*user    `json:"users"`
	Sessions []*session `json:"sessions"`
	Events   []Event    `json:"events"`
	Key      []byte     `json:"token_key"` // PKCS 8
	Dice     []byte     `json:"dice"`      // so that no id is made twice
}

// Save writes the instance, its users, sessions, webhooks and token key as JSON.
func (s *Server) Save(w io.Writer) error {
	key, err := x509.MarshalPKCS8PrivateKey(s.signing().private)
	if err != nil {
		return fmt.Errorf("encode token key: %w", err)
	}
	s.mu.Lock()
	st := state{Instance: s.instance, Events: s.events, Key: key}
	for _, id := range s.order {
		st.Users = append(st.Users, s.users[id])
	}
	for _, n := range s.sessions {
		st.Sessions = append(st.Sessions, n)
	}
	var b []byte
	if st.Dice, err = s.dice.MarshalBinary(); err == nil {
		b, err = json.Marshal(st)
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode clerk sandbox: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("save clerk sandbox: %w", err)
	}
	return nil
}

// Load replaces everything by what Save wrote. Nothing is emitted. On an error nothing has changed.
func (s *Server) Load(r io.Reader) error {
	d := json.NewDecoder(r)
	d.UseNumber() // metadata keeps its numbers as they were written
	var st state
	if err := d.Decode(&st); err != nil {
		return fmt.Errorf("load clerk sandbox: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(st.Key)
	if err != nil {
		return fmt.Errorf("load clerk sandbox: decode token key: %w", err)
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return errors.New("load clerk sandbox: token key is not an RSA key")
	}
	dice := &rand.PCG{}
	if err := dice.UnmarshalBinary(st.Dice); err != nil {
		return fmt.Errorf("load clerk sandbox: decode dice: %w", err)
	}
	s.useKey(identify(private))

	s.mu.Lock()
	defer s.mu.Unlock()
	s.dice, s.rand = dice, rand.New(dice)
	s.instance, s.events = st.Instance, st.Events
	s.users, s.order, s.sessions = map[string]*user{}, nil, map[string]*session{}
	for _, u := range st.Users {
		u.Public, u.Private, u.Unsafe = u.Public.copy(), u.Private.copy(), u.Unsafe.copy()
		s.users[u.ID] = u
		s.order = append(s.order, u.ID)
	}
	for _, n := range st.Sessions {
		s.sessions[n.ID] = n
	}
	return nil
}
