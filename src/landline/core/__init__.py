"""Rules and state machines. No I/O, no clock, no randomness, no event loop: time and chance come as arguments."""
