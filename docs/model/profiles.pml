/* Events that show a user as they are stored, and so are ended at the door without a look. An event shows what was true
   when it happened; it comes late, or before another that happened earlier; and a look that is under way may store what
   it read before all of them. README.md tells what stands for what. */

#define CHANGES 2

byte clerk;                  /* the profile at Clerk: it changes, and changes back */
byte changed;
byte seq = 1;                /* sync_seq */
bool told[3];                /* which of the changes have been delivered */
byte arrived[3];             /* the number of each event */
bool due[3];                 /* whether it has to be looked at */
bool ended[3];               /* whether it was ended at the door */
byte row, row_seq;           /* the stored profile, and the number of the read that it is from */
bool poked;
byte looking;

#define anyDue (due[1] || due[2])

active proctype Clerk() {
	do
	:: changed < CHANGES -> atomic { changed++; clerk = changed % 2 }
	:: else -> break
	od
}

/* store.AddEvents, once for each change, in either order. */
proctype Door(byte change) {
	bool same;
	changed >= change;
#ifdef NO_LOCK
	same = (row == change % 2);
#endif
	atomic {
#ifndef NO_LOCK
		same = (row == change % 2);         /* the user's row is locked against another profile until the commit */
#endif
		seq++; arrived[change] = seq; told[change] = true;
		if
		:: same -> ended[change] = true
		:: else -> due[change] = true; poked = true
		fi
	}
}

/* activities.Users.SyncUser: for what is due, or beside it for whatever other reason. */
proctype Look(bool once) {
	byte number, seen;
	do
	:: atomic { (once || poked || anyDue) -> looking++; poked = false }
	   atomic { seq++; number = seq }
	   seen = clerk;
	   atomic {
		if
		:: number > row_seq ->
			row_seq = number;
			if
			:: seen != row ->
				row = seen;
#ifndef NO_LOOK_AGAIN
				/* store.SetProfile: what was ended meanwhile said what is stored no longer */
				if
				:: (ended[1] && arrived[1] > number) || (ended[2] && arrived[2] > number) -> poked = true
				:: else
				fi
#endif
			:: else
			fi
		:: else
		fi;
		due[1] = due[1] && arrived[1] >= number;
		due[2] = due[2] && arrived[2] >= number;
		looking--
	   }
	   if
	   :: once -> break
	   :: else
	   fi
	:: timeout -> break
	od
}

init { atomic { run Door(1); run Door(2); run Look(true); run Look(false); run Look(false) } }

/* When nothing is left to do, the stored profile is Clerk's. */
active proctype Quiet() {
	atomic {
		timeout ->
		assert(told[1] && told[2] && !anyDue && !poked && looking == 0);
		assert(row == clerk)
	}
}
