"""Actors on gevent: refs that outlive restarts, mailboxes, supervisors, timers, and the link to our other processes."""
