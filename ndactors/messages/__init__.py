"""Everything that an actor, the daemon or one of its processes can be told or asked, one file per topic."""
