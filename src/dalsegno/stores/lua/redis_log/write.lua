#!lua
-- KEYS: row, events, keys, all, unerased, ready, held, expiring, members.
-- ARGV: 1 the stamp that was decided on (nothing = there is no such session), 2 stamp, 3 name, 4 head, 5 epoch, 6 owner,
-- 7 attempt, 8 ready_at, 9 status, 10 state, 11 kept for (ms), 12 digest that must be unknown, 13 claimant,
-- 14 the time that is written (ms; at most the clock's), 15 number of events, 16 events, digests and what is known under them.
-- Replies 1: written, 2: had arrived before, 0: the session is not the one that was decided on; and the clock.

return write()
