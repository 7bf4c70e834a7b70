"""What is said over HTTP and WebSocket: the protocols, and what carries their bytes. No conversation is known here."""
