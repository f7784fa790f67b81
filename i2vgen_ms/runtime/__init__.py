"""Where the networks run, in which number format and at which sizes; nothing here changes what they compute."""
