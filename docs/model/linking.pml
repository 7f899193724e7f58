/* A user and a customer find each other, whichever of the two is heard of first and in the same instant too,
   and nobody ends with two customers. */

bool user, claim;            /* rows that are committed: the user, and a claim on the customer that Stripe told of */
bool shown;                  /* whether a customer of this user exists at Stripe that we did not make */
byte owner;                  /* who owns: 0 nobody, 1 the customer that was there, 2 the one that we made */
bool made, removed;          /* the customer that onboarding makes */
byte creations;              /* how many it has made */
bool used;                   /* the key under which it is made has been used */
bool taken;                  /* a customer that was linked has lost its owner */

/* activities.Subscriptions.link, after the commit of the claim; and Users.pokeClaimed, after that of the user.
   Both link under the user's row lock. */
inline link() {
	atomic {
		if
		:: user && claim && owner == 0 -> owner = 1
		:: else
		fi
	}
}

active proctype Customer() {
	bool sees;
	if
	:: shown = true;
#ifdef LOOK_BEFORE_COMMIT
	   sees = user; claim = true;
	   if :: sees -> link() :: else fi
#else
	   claim = true;
	   link()
#endif
	:: true                                /* there is none */
	fi
}

active proctype User() {
	bool sees;
#ifdef LOOK_BEFORE_COMMIT
	sees = claim; user = true;
	if :: sees -> link() :: else fi
#else
	user = true;
	link()
#endif
}

/* activities.Customers.EnsureStripeCustomer: two attempts, of which one may not have heard the other's answer. */
active [2] proctype Onboarding() {
	bool mine;
	user;
	if
	:: owner != 0 || claim -> goto out     /* has one, or one is about to be linked */
	:: else
	fi;
	atomic {
#ifndef NO_KEY
		if
		:: used                            /* the same key: Stripe answers with the same customer */
		:: else ->
#endif
			made = true; used = true; creations++
#ifndef NO_KEY
		fi
#endif
	};
	atomic {                               /* linkCreated: under the user's row lock */
		if
#ifndef NO_LINK_CHECK
		:: owner == 1 -> mine = false
#endif
		:: else -> taken = taken || owner == 1; if :: !removed -> owner = 2; mine = true :: else fi
		fi
	};
	if
	:: !mine ->
#ifndef NO_UNDO
	   atomic { if :: owner != 2 -> removed = true :: else fi }  /* UndoStripeCustomer */
#else
	   skip
#endif
	:: else
	fi;
out:	skip
}

active proctype Quiet() {
	timeout ->
	assert(creations <= 1);
	assert(!taken);
	assert(!(shown && owner == 0));                       /* who is there is linked */
	assert(!(made && !removed && owner == 1));            /* and nothing is left over */
	assert(!(shown && owner == 2 && removed))
}
