package stripechanges

import "time"

// At makes the client's time be another.
func (c *Client) At(now func() time.Time) { c.now = now }
