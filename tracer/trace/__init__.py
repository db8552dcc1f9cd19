"""One recording: operations as IR nodes, with the memory, gradients and Python state around them."""
