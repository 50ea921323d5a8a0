"""The data plane: a master that holds the sockets, workers that move bytes."""
