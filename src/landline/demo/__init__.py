"""`landline demo`: a server with a bot of its own, and a page that can cut its own line. Loopback only."""
