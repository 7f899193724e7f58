// Package workflows decides what is done and waits for it.
//
// There is one workflow for each entity: a user ([UserOnboarding], [UserProfileSync] and
// [UserOffboarding] are entry points of the same one), a Stripe customer
// ([SubscriptionLifecycle]), a product ([CatalogueSync]) and a disputed charge
// ([DisputeRouting]). Its id is the entity itself. All that a signal says is that there is
// something to look at ([SignalPoke]); what it is stands in the database, and the activities
// find it there. So histories hold no payloads, a thousand events cost one sync, and nothing
// is lost with a run that ends.
//
// No poke is lost with a run. One that ends by itself has looked after its last poke; one that
// continues as new hands on whether a look is owed. A run that somebody cancels may leave pokes
// unanswered: what they were for stays due in the database, and the sweep pokes again.
package workflows
