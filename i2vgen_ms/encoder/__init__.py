"""From pictures and words to the context vectors that the network attends to."""
