/* A user and a customer find each other, whichever of the two is heard of first and in the same instant too,
   and nobody ends with two customers. */

bool user, claim;            /* rows that are committed: the user, and a claim on the customer that Stripe told of */
bool had;                    /* whether the user has had a customer at Stripe since before there was anything to be heard of */
bool begun;                  /* whether that is settled */
bool shown;                  /* whether a customer of this user exists at Stripe that we did not make */
bool ours;                   /* the customer that was there is linked */
bool made, removed;          /* the customer that onboarding makes */
bool linked;                 /* it is linked, by linkCreated or by its own event */
bool vain;                   /* it is noted as made in vain */
byte creations;              /* how many onboarding has made */
bool used;                   /* the key under which it is made has been used */
bool beside;                 /* it was made beside a customer that was linked by then */

/* activities.Subscriptions.link, after the commit of the claim; and Users.pokeClaimed, after that of the user.
   Both link under the user's row lock. */
inline link() {
	atomic {
		if
		:: user && claim -> ours = true
		:: else
		fi
	}
}

active proctype Customer() {
	bool sees;
	begun;
	if
	:: had
	:: !had -> shown = true
	:: !had -> goto none
	fi;
#ifdef LOOK_BEFORE_COMMIT
	sees = user; claim = true;
	if :: sees -> link() :: else fi;
#else
	claim = true;
	link();
#endif
none:	skip
}

active proctype User() {
	bool sees;
	if :: atomic { had = true; shown = true; begun = true } :: begun = true fi;
#ifdef LOOK_BEFORE_COMMIT
	sees = claim; user = true;
	if :: sees -> link() :: else fi
#else
	user = true;
	link()
#endif
}

/* activities.Customers.EnsureStripeCustomer: two attempts, of which one may not have heard the other's answer. The user was there
   before us, so that Stripe is asked for what it had. */
active [2] proctype Onboarding() {
	bool mine, again;
	user;
	if :: claim && !ours -> goto out :: else fi;           /* one is about to be linked */
	if :: ours || linked -> goto out :: else fi;           /* has one */
	if :: shown && !ours -> goto out :: else fi;           /* search finds one, which is looked at now */
#ifndef NO_LOOK_AGAIN
	if :: ours || linked -> goto out :: else fi;           /* it was linked while it was looked for */
#endif
	atomic {
#ifndef NO_KEY
		again = used;                                  /* the same key: Stripe answers with the same customer */
#endif
		if
		:: again
		:: else -> made = true; used = true; creations++
		fi
	};
	atomic {                                               /* linkCreated: under the user's row lock */
		mine = true;
		if
		:: linked                                      /* its own event came first: it stays, they may be buying on it */
#ifndef NO_LINK_CHECK
		:: !linked && ours -> mine = false; if :: !removed -> vain = true :: else fi
		:: !linked && !ours -> linked = !removed
#else
		:: !linked -> beside = beside || ours; linked = !removed
#endif
		fi;
		beside = beside || vain
	};
	if
	:: !mine ->
#ifndef NO_UNDO
	   atomic {                                            /* UndoStripeCustomer */
		if
#ifndef NO_LASTING_VAIN
		:: vain && !removed -> removed = true          /* the note stays on what was removed */
#else
		:: vain && !removed -> removed = true; vain = false
#endif
		:: else
		fi
	   }
#else
	   skip
#endif
	:: else
	fi;
out:	skip
}

/* The event that tells of the customer that was made, which names its user: it comes at any time. What it read may be removed by then. */
active proctype Created() {
	bool gone;
end:	made;                                                  /* where one is */
	gone = removed;
	atomic {
		if
		:: gone
#ifndef NO_VAIN
		:: !gone && vain                               /* left to whoever undoes it, or has undone it */
		:: !gone && !vain -> linked = true
#else
		:: !gone -> linked = true; vain = false        /* and the undo leaves alone what is linked */
#endif
		fi
	}
}

active proctype Quiet() {
	timeout ->
	assert(creations <= 1);
	assert(!(shown && !ours));                             /* who is there is linked */
	assert(!(had && made));                                /* who had one is given no other, not even for a moment */
	assert(!(beside && vain && !removed));                 /* nothing is left over of one that was made beside another */
	assert(!(beside && linked));
	assert(!(linked && removed))                           /* and nobody is linked to what was removed */
}
