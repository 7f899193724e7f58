package clerksim_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

// The fields of Clerk's own webhooks, as its description of them names them.
const (
	envelopeFields = "data event_attributes instance_id object timestamp type"
	userFields     = "backup_code_enabled banned create_organization_enabled create_organizations_limit created_at " +
		"delete_self_enabled email_addresses enterprise_accounts external_accounts external_id first_name has_image id image_url " +
		"last_active_at last_name last_sign_in_at legal_accepted_at locked lockout_expires_in_seconds mfa_disabled_at " +
		"mfa_enabled_at object passkeys password_enabled phone_numbers primary_email_address_id primary_phone_number_id " +
		"primary_web3_wallet_id private_metadata profile_image_url public_metadata saml_accounts totp_enabled " +
		"two_factor_enabled unsafe_metadata updated_at username verification_attempts_remaining web3_wallets"
	deletedFields = "deleted external_id id object"
)

func TestWebhooksHaveClerksFields(t *testing.T) {
	t.Parallel()
	sim := clerksim.New(clerksim.Options{})
	id := sim.AddUser(clerksim.UserSpec{ExternalID: "ext_1"})
	if err := sim.WipeMetadata(id); err != nil {
		t.Fatal(err)
	}
	if err := sim.DeleteUser(id); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"user.created": userFields, "user.updated": userFields, "user.deleted": deletedFields}
	for _, e := range sim.Events() {
		var envelope map[string]json.RawMessage
		var data map[string]json.RawMessage
		if err := json.Unmarshal(e.Body, &envelope); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(envelope["data"], &data); err != nil {
			t.Fatal(err)
		}
		if got := fields(envelope); got != envelopeFields {
			t.Errorf("%s: envelope %s", e.Type, got)
		}
		if got := fields(data); got != want[e.Type] {
			t.Errorf("%s: data %s", e.Type, got)
		}
	}
}

func fields(m map[string]json.RawMessage) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), " ")
}
