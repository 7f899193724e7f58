// Package operator is what somebody who looks after the system asks of it: which events are stuck
// and why, to have them tried or taken again, in what the three systems differ, and how one user
// stands in each of them. The command line asks it, and, for admins, the API does.
package operator
