"""A small process, standard library only, that owns the apps that run on the host: it spawns, reads and reaps them, and
outlives the daemon. It is started by file, so that it loads nothing else."""
