package account

import "time"

// ReadsBehind is how long a read of a provider may show what was before: not each of the copies that
// answer has what the provider has told already.
const ReadsBehind = time.Minute

// ClocksDiffer is how far Stripe's clock may be behind the database's.
const ClocksDiffer = 5 * time.Minute
